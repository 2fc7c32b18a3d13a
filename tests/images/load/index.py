# SPDX-License-Identifier: LGPL-2.1-or-later
# index.py: an index of words over the documents on standard input, which it keeps.
import json, sys, time
documents, words = [], {}
for line in sys.stdin:
    d = json.loads(line)
    documents.append(d)
    for w in d["note"].split()[:6]:
        words.setdefault(w, []).append(d["id"])
print("ready", len(documents), len(words), flush=True)
while True:
    time.sleep(5)
    sum(len(v) for v in words.values())
