# SPDX-License-Identifier: LGPL-2.1-or-later
# words.pl: documents and how often words occur in them, kept in hashes.
use strict;
use warnings;
$| = 1;
my (%count, %doc);
while (<STDIN>) {
  my ($id) = /"id":(\d+)/;
  $doc{$id} = $_;
  $count{$_}++ for (split)[0 .. 9];
}
print "ready\n";
sleep 5 while 1;
