# SPDX-License-Identifier: LGPL-2.1-or-later
# records.pl SEED FORM MIB: documents such as services keep (a session: its user,
# what was asked of late, a note of running text), the same ones for the same SEED.
use strict;
use warnings;
my ($seed, $form, $mib) = @ARGV;
my @t;
for my $f (sort(glob("/usr/share/common-licenses/*"), glob("/usr/share/doc/*/copyright"), glob("/usr/share/perl/5*/pod/*.pod"))) {
  open my $h, '<', $f or next;
  while (<$h>) { push @t, split }
  last if @t > 150000;
}
srand $seed;
my ($n, $bytes) = (0, 0);
my @first = qw(anna bert carla dieter emil frida gerd hanna ivan jana karl lena max nora otto paul rosa sven tina uwe);
my @methods = qw(GET GET GET GET POST PUT);
my @paths = qw(/api/v1/items /api/v1/orders /api/v1/users /static/app.js /login /search /health);
my @events = map { sprintf '{"at":"2026-11-%02dT%02d:%02d:%02dZ","method":"%s","path":"%s/%d","status":%d,"ms":%.1f}', 1 + rand 28, rand 24,
  rand 60, rand 60, $methods[rand @methods], $paths[rand @paths], rand 100000, (200, 200, 200, 304, 404)[rand 5], rand 90 } 1 .. 8000;
sub hex32 { join '', map { sprintf '%08x', int rand 4294967296 } 1 .. $_[0] }
print "create table t(id integer primary key, owner text, body text); begin;\n" if $form eq 'sql';
while ($bytes < $mib << 20) {
  my $who = $first[rand @first] . int rand 10000;
  my $text = '';
  for (1 .. 1 + rand 4) {
    my $at = int rand(@t - 60);
    $text .= join(' ', @t[$at .. $at + 12 + rand 40]) . '. ';
  }
  $text =~ tr/"\\'//d;
  my $at = int rand(@events - 40);
  my $doc = sprintf '{"id":%d,"user":"%s@example.org","session":"%s","etag":"%s","created":"2026-%02d-%02dT%02d:%02d:%02dZ","address":"10.%d.%d.%d","roles":["reader","%s"],"active":%s,"score":%.6f,"history":[%s],"note":"%s"}',
    $n, $who, hex32(4), hex32(8), 1 + rand 12, 1 + rand 28, rand 24, rand 60, rand 60, rand 256, rand 256, rand 256,
    rand() < 0.2 ? 'editor' : 'guest', rand() < 0.7 ? 'true' : 'false', rand, join(',', @events[$at .. $at + 4 + rand 30]), $text;
  my $l = length $doc;
  $bytes += $l;
  if ($form eq 'resp') {
    my $key = "session:$n";
    printf "*3\r\n\$3\r\nSET\r\n\$%d\r\n%s\r\n\$%d\r\n%s\r\n", length $key, $key, $l, $doc;
  } elsif ($form eq 'memcached') { printf "set session:%d 0 0 %d noreply\r\n%s\r\n", $n, $l, $doc }
  elsif ($form eq 'sql') { printf "insert into t values(%d,'%s','%s');\n", $n, $who, $doc }
  elsif ($form eq 'lines') { print "$doc\n" }
  elsif ($form eq 'html') {
    mkdir int($n / 500) if $n % 500 == 0;
    open my $h, '>', int($n / 500) . "/$n.html" or die "html: $!";
    print $h "<!doctype html><html><head><title>$who</title></head><body><h1>$who</h1><pre>$doc</pre><p>$text</p></body></html>\n";
    $bytes += 4096 - ($l + length($text)) % 4096 + length $text; # a file takes whole pages
  }
  $n++;
}
print "commit; create index o on t(owner);\n" if $form eq 'sql';
