# SPDX-License-Identifier: LGPL-2.1-or-later
# objects.tcl: documents in a dictionary.
set n 0
while {[gets stdin l] >= 0} {
  dict set docs $n [dict create line $l words [lrange [split $l] 0 9]]
  incr n
}
puts "ready $n"
flush stdout
vwait forever
