#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""moves.py postcopy|snapshot DIR [PREFIX...] - QEMU's own use of userfaultfd, with the guest that counts (guest.s) in DIR/guest

postcopy: it moves from one QEMU to another, which fetches the memory as it is touched. snapshot: its memory is saved as it was at one moment,
by protecting it, while it counts on; and it goes on from there in another QEMU. QEMU is run by PREFIX. Checks that the numbers which
are counted follow one another without a gap, and prints how many pages had to be asked for.
"""
import json
import os
import select
import subprocess
import sys
import time

what, folder, *prefix = sys.argv[1:]


class Guest:
    def __init__(self, *more):
        self.reader, writer = os.pipe()
        self.text = ""
        self.qemu = subprocess.Popen(
            [*prefix, "qemu-system-x86_64", "-accel", "tcg", "-nodefaults", "-display", "none", "-m", "64M", "-machine", "pc",
             "-drive", f"file={folder}/guest,format=raw,if=ide,snapshot=on", "-chardev", f"file,id=out,path=/dev/fd/{writer}",
             "-device", "isa-debugcon,iobase=0xe9,chardev=out", "-qmp", "stdio", *more],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=[writer], text=True)
        os.close(writer)
        self.qemu.stdout.readline()
        self.command("qmp_capabilities")

    def command(self, name, **values):
        self.qemu.stdin.write(json.dumps({"execute": name, "arguments": values}) + "\n")
        self.qemu.stdin.flush()
        for line in self.qemu.stdout:
            answer = json.loads(line)
            if "error" in answer:
                sys.exit(f"{name}: {answer['error']}")
            if "return" in answer:
                return answer["return"]
        sys.exit(f"{name}: QEMU has ended")

    def can(self, capability):
        self.command("migrate-set-capabilities", capabilities=[{"capability": capability, "state": True}])

    def migration(self, *states):
        """Waits until it is in one of these states: the answer."""
        while True:
            answer = self.command("query-migrate")
            if answer.get("status") in states:
                return answer
            if answer.get("status") in ("failed", "cancelled"):
                sys.exit(f"migration: {answer}")
            time.sleep(0.01)

    def read_on(self):
        more = os.read(self.reader, 65536).decode()
        self.text += more
        return more

    def read_lines(self, count):
        """Until there are so many."""
        while self.text.count("\n") < count:
            if not self.read_on():
                sys.exit("the guest has ended")

    def read_rest(self):
        while select.select([self.reader], [], [], 0)[0] and self.read_on():
            pass

    def end(self):
        self.qemu.kill()
        self.qemu.wait()


def check_numbers(text):
    numbers = [int(line, 16) for line in text.split("\n") if len(line) == 8]
    if "!" in text or len(numbers) < 20 or any(b != a + 1 for a, b in zip(numbers, numbers[1:])):
        sys.exit(f"the numbers are wrong: {text}")


guest = Guest()
guest.read_lines(20)
if what == "postcopy":
    other = Guest("-incoming", "defer")
    guest.can("postcopy-ram")
    other.can("postcopy-ram")
    other.command("migrate-incoming", uri=f"unix:{folder}/migration")
    # Slower than the guest writes, so that most of it is not there when it moves.
    guest.command("migrate-set-parameters", **{"max-bandwidth": 4 << 20})
    guest.command("migrate", uri=f"unix:{folder}/migration")
    guest.migration("active")
    guest.command("migrate-start-postcopy")
    guest.migration("postcopy-active", "completed")
    guest.command("migrate-set-parameters", **{"max-bandwidth": 1 << 30})
    asked_for = guest.migration("completed")["ram"]["postcopy-requests"]
    guest.read_rest()
    other.read_lines(20)
    check_numbers(guest.text + other.text)
else:
    guest.can("background-snapshot")
    guest.command("migrate", uri=f"exec:cat >{folder}/snapshot")
    guest.migration("completed")
    guest.read_rest()
    guest.read_lines(guest.text.count("\n") + 20)
    check_numbers(guest.text)
    other = Guest("-incoming", "defer")
    other.command("migrate-incoming", uri=f"exec:cat {folder}/snapshot")
    other.migration("completed")
    other.command("cont")
    other.read_lines(20)
    check_numbers(other.text)
    asked_for = 0
guest.end()
other.end()
print(asked_for)
