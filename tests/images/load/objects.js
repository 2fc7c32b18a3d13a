// SPDX-License-Identifier: LGPL-2.1-or-later
// objects.js: documents as objects, by user.
const byUser = new Map();
require('readline').createInterface({input: process.stdin}).on('line', l => {
  const d = JSON.parse(l);
  if (!byUser.has(d.user)) byUser.set(d.user, []);
  byUser.get(d.user).push(d);
}).on('close', () => {
  console.log('ready', byUser.size);
  setInterval(() => byUser.size, 5000);
});
