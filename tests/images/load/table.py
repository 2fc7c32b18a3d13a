# SPDX-License-Identifier: LGPL-2.1-or-later
# table.py SEED: columns of numbers, and the lines they came from as bytes.
import array, asyncio, decimal, email, hashlib, http.server, json, logging, random, re, sqlite3, sys, time, unittest, xml.dom.minidom
random.seed(int(sys.argv[1]))
blobs, scores, ids = [], array.array("d"), array.array("q")
for line in sys.stdin.buffer:
    blobs.append(line)
    for _ in range(8):
        scores.append(round(random.gauss(100, 15), 2))
        ids.append(random.randrange(1 << 20))
print("ready", len(blobs), flush=True)
while True:
    time.sleep(5)
    sum(scores[::64])
