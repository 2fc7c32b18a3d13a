# SPDX-License-Identifier: LGPL-2.1-or-later
# objects.rb: documents as objects, by user.
require 'json'
by_user = {}
STDIN.each_line do |l|
  d = JSON.parse(l)
  (by_user[d['user']] ||= []) << d
end
puts "ready #{by_user.size}"
STDOUT.flush
loop { sleep 5 }
