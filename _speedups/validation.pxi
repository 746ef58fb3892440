# Decides what snakepit_mp/values/validator.py specifies, where that takes no more than bounds
# and lengths; the pure twin has the last word on everything else, and raises every error.

cimport cython
from cpython.float cimport PyFloat_AS_DOUBLE, PyFloat_CheckExact
from cpython.long cimport PyLong_CheckExact
from cpython.unicode cimport PyUnicode_CheckExact
from libc.stdint cimport INT64_MAX, INT64_MIN, int64_t

cdef enum Quick:
    QUICK_NOTHING
    QUICK_FLOAT
    QUICK_INTEGER
    QUICK_STRING
    QUICK_BOOLEAN

cdef dict _QUICK = {
    "float": QUICK_FLOAT,
    "integer": QUICK_INTEGER,
    "string": QUICK_STRING,
    "boolean": QUICK_BOOLEAN,
}
cdef frozenset _BOUNDS = frozenset(("min", "max", "min_length", "max_length", "nullable"))


cdef int64_t as_int64(number) except? -1:
    """The nearest 64-bit integer."""
    return max(min(number, INT64_MAX), INT64_MIN)


@cython.final
@cython.auto_pickle(False)
cdef class Validator:
    """What a variable takes; see ``snakepit_mp.values.validator``."""

    cdef object pure
    cdef Quick quick
    cdef bint bounded
    cdef double least_float
    cdef double most_float
    cdef int64_t least
    cdef int64_t most

    def __init__(self, kind, constraints=None, variable=None):
        # Not at the top: that module asks for this one.
        from snakepit_mp.values.validator import PyValidator

        self.pure = PyValidator(kind, constraints, variable).prepare
        known = {} if constraints is None else constraints
        self.quick = _QUICK.get(kind, QUICK_NOTHING) if _BOUNDS.issuperset(known) else QUICK_NOTHING
        self.least, self.most = INT64_MIN, INT64_MAX
        self.bounded = "min" in known or "max" in known
        if self.quick == QUICK_FLOAT:
            self.least_float = known.get("min", float("-inf"))
            self.most_float = known.get("max", float("inf"))
        elif self.quick == QUICK_INTEGER:
            self.set_range(known.get("min", INT64_MIN), known.get("max", INT64_MAX))
        elif self.quick == QUICK_STRING:
            self.set_range(known.get("min_length", 0), known.get("max_length", INT64_MAX))

    cdef int set_range(self, least, most) except -1:
        self.least, self.most = as_int64(least), as_int64(most)
        if least > INT64_MAX or most < INT64_MIN:
            self.quick = QUICK_NOTHING  # only what is larger than 64 bits can fit
        return 0

    cdef inline bint fits(self, object value) except -1:
        """Whether ``value`` is in normal form, and surely obeys every constraint."""
        cdef int overflow = 0
        cdef int64_t number
        cdef double real
        if self.quick == QUICK_FLOAT:
            if not PyFloat_CheckExact(value):
                return False
            real = PyFloat_AS_DOUBLE(value)
            return self.least_float <= real <= self.most_float or not self.bounded
        if self.quick == QUICK_INTEGER:
            if not PyLong_CheckExact(value):
                return False
            number = PyLong_AsLongLongAndOverflow(value, &overflow)
            return not overflow and self.least <= number <= self.most
        if self.quick == QUICK_STRING:
            if not PyUnicode_CheckExact(value):
                return False
            return self.least <= PyUnicode_GET_LENGTH(value) <= self.most
        return self.quick == QUICK_BOOLEAN and (value is True or value is False)

    def prepare(self, value, /):
        """``value`` in normal form, if it fits the variable."""
        return value if self.fits(value) else self.pure(value)
