# The compiled twin of the store; see docs/memory-layout.md.

include "store_layout.pxi"
include "store_memory.pxi"
include "store_log.pxi"
include "store_pages.pxi"
include "store_table.pxi"
include "store_stripe.pxi"
include "store_sessions.pxi"
include "store_variables.pxi"
include "store_process.pxi"
include "store_see.pxi"
include "store_raw.pxi"
include "store_look.pxi"
include "store_work.pxi"
include "store_mapping.pxi"

cdef extern from "store_atomics.h":
    const bint STORE_IS_BUILT

if not STORE_IS_BUILT:  # the pure twin looks for these names
    for _name in ("Allocation", "RawStore", "STORE_LAYOUT", "VariableAccess"):
        globals().pop(_name)
    del _name
