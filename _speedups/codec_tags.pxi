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
    TAG_BYTEARRAY = 0x0F
    TAG_COMPLEX = 0x10
    TAG_PACKED_LIST = 0x11
    TAG_PACKED_TUPLE = 0x12
    TAG_KEYED_DICT = 0x13
    TAG_SET = 0x14
    TAG_FROZENSET = 0x15
    FIRST_TAG_WITH_PARTS = 0x16  # TAG_DATE
    LAST_TAG_WITH_PARTS = 0x25  # TAG_REGISTERED

    SHORT_TUPLE = 0x30
    SHORT_STR = 0x40
    SHORT_LIST = 0x60
    SHORT_DICT = 0x70
    SHORT_INT = 0x80

    SMALLEST_SHORT_INT = -32
    LARGEST_SHORT_INT = 95
    LONGEST_SHORT_STR = 31
    LONGEST_SHORT = 15
    KEYED_FROM = 8
