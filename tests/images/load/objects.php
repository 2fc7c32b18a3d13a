<?php
// SPDX-License-Identifier: LGPL-2.1-or-later
// objects.php: documents as arrays, by user.
ini_set('memory_limit', '-1');
$by = [];
while (($l = fgets(STDIN)) !== false) {
    $d = json_decode($l, true);
    $by[$d['user']][] = $d;
}
echo "ready ", count($by), "\n";
while (true) sleep(5);
