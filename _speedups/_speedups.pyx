# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Compiled twins of pure modules; see ``_speedups/README.md``."""

include "codec_write.pxi"
include "codec_encode.pxi"
include "codec_read.pxi"
include "codec_decode.pxi"
include "validation.pxi"
include "store.pxi"
include "mailbox.pxi"
