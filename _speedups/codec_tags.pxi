# The numbers of snakepit_mp/values/wire.py, which explains them.

cdef extern from *:
    """
    #if !defined(__BYTE_ORDER__) || __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
    #error "the compiled codec copies numbers as they are, which takes a little-endian machine"
    #endif
    #define CODEC_LONG_COUNT UINT32_C(0xFFFFFFFF)
    """
    const uint32_t LONG_COUNT "CODEC_LONG_COUNT"

cdef enum:
    VERSION = 1
    MAX_DEPTH = 64

    TAG_NONE = 0x00
    TAG_FALSE = 0x01
    TAG_TRUE = 0x02
    TAG_INT = 0x03
    TAG_BIG_INT = 0x04
    TAG_FLOAT = 0x05
    TAG_ASCII = 0x06
    TAG_UTF8 = 0x07
    TAG_BYTES = 0x08
    TAG_LIST = 0x09
    TAG_TUPLE = 0x0A
    TAG_DICT = 0x0B
    TAG_ARRAY = 0x0C
    TAG_SCALAR = 0x0D
    TAG_PICKLE = 0x0E

    SHORT_TUPLE = 0x30
    SHORT_STR = 0x40
    SHORT_LIST = 0x60
    SHORT_DICT = 0x70
    SHORT_INT = 0x80

    SMALLEST_SHORT_INT = -32
    LARGEST_SHORT_INT = 95
    LONGEST_SHORT_STR = 31
    LONGEST_SHORT = 15
