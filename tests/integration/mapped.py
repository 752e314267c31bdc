#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""mapped.py PATH - reads and maps a file in the ways of Python, and prints what it found; of a served file the same as of a real one."""
import hashlib
import mmap
import multiprocessing
import os
import subprocess
import sys
import threading

path = sys.argv[1]


def tell(name, data):
    print(name, len(data), hashlib.sha256(data).hexdigest())


def map_whole(access=mmap.ACCESS_READ):
    with open(path, "rb") as file:
        return mmap.mmap(file.fileno(), 0, access=access)


def part(number):
    with open(path, "rb") as file:
        file.seek(number * 4999)
        return file.read(5000)


def digest_of_inherited(_):
    return hashlib.sha256(inherited[:]).hexdigest()


print("size", os.stat(path).st_size, os.path.getsize(path), os.path.isfile(path), os.path.exists(path))
with open(path, "rb") as file:
    tell("read", file.read())
    file.seek(-1000, os.SEEK_END)
    tell("end", file.read())
    print("at", file.tell())
with open(path, "rb", buffering=0) as file:
    tell("raw", file.read(12345))
fd = os.open(path, os.O_RDONLY)
tell("pread", os.pread(fd, 7777, 100001))
buffers = [bytearray(100), bytearray(5000)]
print("preadv", os.preadv(fd, buffers, 4000), hashlib.sha256(b"".join(buffers)).hexdigest())
with map_whole() as whole:
    tell("map", whole[:])
    print("find", whole.find(part(100)[:64]))
    whole.seek(4096 * 3)
    tell("lines", whole.readline())
with map_whole(mmap.ACCESS_COPY) as copy:
    copy[5000:5010] = b"0123456789"
    tell("copy", copy[:])
with map_whole() as whole:
    tell("unchanged", whole[:])

inherited = map_whole()
pid = os.fork()
if pid == 0:
    tell("forked", inherited[:])
    sys.stdout.flush()
    os._exit(0)
os.waitpid(pid, 0)
with multiprocessing.Pool(4) as pool:
    for piece in pool.map(part, range(0, 200, 7)):
        tell("pool", piece)
    print(set(pool.map(digest_of_inherited, range(8))))
print("spawned", subprocess.run(["sha256sum"], stdin=os.open(path, os.O_RDONLY), stdout=subprocess.PIPE, check=True).stdout)
print("tail", hashlib.sha256(subprocess.run(["tail", "-c", "5000", path], stdout=subprocess.PIPE, check=True).stdout).hexdigest())
print("cmp", subprocess.run(["cmp", path, os.environ["MODEL"]], check=False).returncode)

found = [None] * 4
threads = [threading.Thread(target=lambda i=i: found.__setitem__(i, hashlib.sha256(map_whole()[:]).hexdigest())) for i in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(set(found))
