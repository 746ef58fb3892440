# The compiled twin of the store; see docs/memory-layout.md.

include "store_layout.pxi"
include "store_memory.pxi"
include "store_log.pxi"
include "store_pages.pxi"
include "store_table.pxi"
include "store_stripe.pxi"
include "store_sessions.pxi"
include "store_process.pxi"
include "store_raw.pxi"
include "store_mapping.pxi"
