package checkpoint

import (
	"bytes"
	"fmt"
	"strconv"
)

// LSN is a position in the write-ahead log, in bytes from its beginning. Its
// text form is Postgres's: the upper and the lower 32 bits in hexadecimal with
// a slash between them, such as 0/16B3748 (PostgreSQL documentation, "pg_lsn
// Type").
type LSN uint64

func (l LSN) String() string {
	return fmt.Sprintf("%X/%X", uint32(l>>32), uint32(l)) //nolint:gosec // the two halves
}

// MarshalText implements [encoding.TextMarshaler].
func (l LSN) MarshalText() ([]byte, error) {
	return []byte(l.String()), nil
}

// UnmarshalText implements [encoding.TextUnmarshaler]. Like Postgres it takes
// one to eight hexadecimal digits, of either case, on each side of the slash.
func (l *LSN) UnmarshalText(b []byte) error {
	upper, lower, found := bytes.Cut(b, []byte("/"))
	hi, ok1 := parseHalf(upper)
	lo, ok2 := parseHalf(lower)
	if !found || !ok1 || !ok2 {
		return fmt.Errorf("LSN %.40q: want two hexadecimal numbers of up to 8 digits, as in 0/16B3748", b)
	}
	*l = LSN(hi<<32 | lo)
	return nil
}

func parseHalf(b []byte) (v uint64, ok bool) {
	if len(b) < 1 || len(b) > 8 {
		return 0, false
	}
	v, err := strconv.ParseUint(string(b), 16, 32)
	return v, err == nil
}
