/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Every step of an action, in its order.  Included by fault.h and fault.c with
 * BL_FAULT_POINT defined; therefore no include guard. */
BL_FAULT_POINT(LEDGER_BEFORE_WRITE, "ledger-before-write") /* nothing written yet */
BL_FAULT_POINT(LEDGER_TMP_WRITTEN, "ledger-tmp-written") /* the new file is complete, the old one in place */
BL_FAULT_POINT(LEDGER_RENAMED, "ledger-renamed") /* the new file is in place */
BL_FAULT_POINT(BALLOON_BEFORE_LOOK, "balloon-before-look") /* in the worker, before one more look */
BL_FAULT_POINT(BALLOON_BEFORE_RPC, "balloon-before-rpc") /* looked, not yet commanded */
BL_FAULT_POINT(BALLOON_AFTER_RPC, "balloon-after-rpc") /* libvirt has answered */
BL_FAULT_POINT(BALLOON_BEFORE_RESULT, "balloon-before-result") /* on the loop, before the answer is recorded */
BL_FAULT_POINT(BALLOON_AFTER_RESULT, "balloon-after-result") /* the answer is in the ledger */
BL_FAULT_POINT(PERIOD_BEFORE_RPC, "period-before-rpc") /* before the statistics period is set */
BL_FAULT_POINT(PERIOD_AFTER_RPC, "period-after-rpc")
BL_FAULT_POINT(UNDO_BEFORE_STEP, "undo-before-step")
BL_FAULT_POINT(UNDO_BEFORE_FORGET, "undo-before-forget") /* the VM is as it was, the ledger does not know yet */
BL_FAULT_POINT(KNOB_BEFORE_WRITE, "knob-before-write") /* of the host: in the ledger, nothing written yet */
BL_FAULT_POINT(KNOB_WRITTEN, "knob-written") /* one is, the ledger does not know that it was done */
BL_FAULT_POINT(KNOB_PUT_BACK, "knob-put-back") /* one is as it was, the ledger does not know yet */
BL_FAULT_POINT(STORE_TAKEN, "store-taken") /* number and place of a new page are its, nothing is in them */
BL_FAULT_POINT(STORE_COPIED, "store-copied") /* its bytes are there */
BL_FAULT_POINT(STORE_FILLED, "store-filled") /* its entry is complete, no slot says so */
BL_FAULT_POINT(STORE_COMMITTED, "store-committed") /* the slot word is exchanged, the old reference not dropped */
BL_FAULT_POINT(STORE_DROPPED, "store-dropped") /* it is; no reply yet */
BL_FAULT_POINT(STORE_TABLE, "store-table") /* a table holds nothing, and is still in the tree */
BL_FAULT_POINT(STORE_MOVED, "store-moved") /* a copy is complete, its entry names the old place */
BL_FAULT_POINT(STORE_FLIPPED, "store-flipped") /* it names the new one, the old is not yet free */
BL_FAULT_POINT(STORE_FORGOTTEN, "store-forgotten") /* an export is no more, all that it held is still taken */
