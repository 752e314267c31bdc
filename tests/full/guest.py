#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""guest.py save|resume DIR - a guest that counts (guest.s), whose memory is DIR/ram

save: runs it, stops it, and leaves the state of its devices in DIR/state and the memory in DIR/ram. resume: goes on from there, with the
memory as a private mapping. Both print the last number that was counted; resume checks that they follow one another without a gap.
"""
import json
import os
import select
import subprocess
import sys

what, folder = sys.argv[1:]
share = "on" if what == "save" else "off"
reader, writer = os.pipe()
arguments = ["qemu-system-x86_64", "-accel", "tcg", "-nodefaults", "-display", "none", "-m", "64M", "-machine", "pc,memory-backend=ram",
             "-object", f"memory-backend-file,id=ram,size=64M,mem-path={folder}/ram,share={share}",
             "-drive", f"file={folder}/guest,format=raw,if=ide", "-chardev", f"file,id=out,path=/dev/fd/{writer}",
             "-device", "isa-debugcon,iobase=0xe9,chardev=out", "-qmp", "stdio"]
if what == "resume":
    arguments += ["-incoming", "defer"]
qemu = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=[writer], text=True)
os.close(writer)


def command(name, **values):
    qemu.stdin.write(json.dumps({"execute": name, "arguments": values}) + "\n")
    qemu.stdin.flush()
    while True:
        answer = json.loads(qemu.stdout.readline())
        if "error" in answer:
            sys.exit(f"{name}: {answer['error']}")
        if "return" in answer:
            return answer["return"]


def wait_for_event(name):
    while json.loads(qemu.stdout.readline()).get("event") != name:
        pass


def wait_for_migration():
    while True:
        state = command("query-migrate").get("status")
        if state == "completed":
            return
        if state in ("failed", "cancelled"):
            sys.exit(f"migration: {state}")
        select.select([], [], [], 0.01)


def read_numbers(text, count):
    """What is printed, until there are `count` whole lines."""
    while text.count("\n") < count:
        more = os.read(reader, 4096).decode()
        if not more:
            sys.exit("the guest has ended")
        text += more
    return text


json.loads(qemu.stdout.readline())
command("qmp_capabilities")
command("migrate-set-capabilities", capabilities=[{"capability": "x-ignore-shared", "state": True}])
if what == "save":
    text = read_numbers("", 20)
    command("stop")
    command("migrate", uri=f"exec:cat >{folder}/state")
    wait_for_migration()
else:
    last = int(open(f"{folder}/last").read())
    command("migrate-incoming", uri=f"exec:cat {folder}/state")
    wait_for_migration()
    command("cont")
    text = read_numbers("", 20)
command("quit")
qemu.wait()
while more := os.read(reader, 65536).decode():
    text += more
if "!" in text:
    sys.exit("the guest has found a page that is not as it left it")
whole, rest = text.rsplit("\n", 1)
numbers = [int(line, 16) for line in whole.split("\n")]
if what == "save":
    # The end of a line may have been printed in the middle.
    open(f"{folder}/last", "w").write(str(numbers[-1]))
    open(f"{folder}/rest", "w").write(rest)
else:
    whole = open(f"{folder}/rest").read() + text
    numbers = [int(line, 16) for line in whole.rsplit("\n", 1)[0].split("\n")]
    if numbers != list(range(last + 1, last + 1 + len(numbers))):
        sys.exit(f"after {last} the guest counts {numbers}")
print(numbers[-1])
