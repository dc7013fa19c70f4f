package replication

import (
	"encoding/binary"
	"fmt"
	"io"
)

const (
	frameHeader = 5 // type byte and length
	readBuffer  = 256 << 10
	maxFrame    = 1 << 30 // Postgres itself allocates no message beyond 1 GiB
)

// frames reads whole protocol messages from a connection through one buffer.
//
// Until streaming starts pgx reads through it (Read), and is never given more
// than the message it is in the middle of, so that it can't swallow the
// beginning of the stream. From then on the stream's goroutine takes messages
// straight out of the buffer (next), which saves a copy, the allocations of a
// decoded message, and a look at the deadline per message.
//
// An error of the connection leaves everything that was read in place: after
// a timeout the same call can be made again.
type frames struct {
	src  io.Reader
	buf  []byte
	r, w int // buf[r:w] is read and not yet consumed
	left int // what Read still owes of the message it is in

	received int // bytes so far: how a caller sees that a slow message moves
}

func newFrames(src io.Reader) *frames {
	return &frames{src: src, buf: make([]byte, readBuffer)}
}

// Read implements io.Reader for the time before streaming.
func (f *frames) Read(p []byte) (int, error) {
	if f.left == 0 {
		if err := f.need(frameHeader); err != nil {
			return 0, err
		}
		size, err := f.size()
		if err != nil {
			return 0, err
		}
		f.left = size
	}
	if err := f.need(1); err != nil {
		return 0, err
	}
	n := copy(p, f.buf[f.r:min(f.w, f.r+f.left)])
	f.r += n
	f.left -= n
	return n, nil
}

// ready reports whether next would return without reading.
func (f *frames) ready() bool {
	if f.w-f.r < frameHeader {
		return false
	}
	size, err := f.size()
	return err != nil || f.w-f.r >= size
}

// peek returns the type and body of the next message, reading as needed. The
// body is valid until the next call of a method other than ready.
func (f *frames) peek() (byte, []byte, error) {
	if err := f.need(frameHeader); err != nil {
		return 0, nil, err
	}
	size, err := f.size()
	if err != nil {
		return 0, nil, err
	}
	if err := f.need(size); err != nil {
		return 0, nil, err
	}
	return f.buf[f.r], f.buf[f.r+frameHeader : f.r+size], nil
}

// skip consumes the message that peek returned.
func (f *frames) skip() {
	size, _ := f.size()
	f.r += size
	if f.r == f.w && len(f.buf) > readBuffer {
		f.buf = make([]byte, readBuffer) // a large message must not stay allocated for ever
		f.r, f.w = 0, 0
	}
}

// size is that of the message at r, header included; its header is buffered.
func (f *frames) size() (int, error) {
	n := binary.BigEndian.Uint32(f.buf[f.r+1:])
	if n < 4 || n > maxFrame {
		return 0, &Error{
			Op: "read message", Cause: fmt.Errorf("length %d of message type %q makes no sense", n, f.buf[f.r]),
			condition: "decode_failed", final: true, remedy: "check that postgres.url leads to Postgres itself and that nothing between alters the stream",
		}
	}
	return int(n) + 1, nil
}

// need reads until n bytes are buffered.
func (f *frames) need(n int) error {
	if f.w-f.r >= n {
		return nil
	}
	f.makeRoom(n)
	for f.w-f.r < n {
		k, err := f.src.Read(f.buf[f.w:])
		f.w += k
		f.received += k
		if err != nil && f.w-f.r < n {
			return err
		}
	}
	return nil
}

func (f *frames) makeRoom(n int) {
	switch {
	case f.r == f.w:
		f.r, f.w = 0, 0
	case f.r+n > len(f.buf):
		f.w = copy(f.buf, f.buf[f.r:f.w])
		f.r = 0
	}
	if n > len(f.buf) {
		grown := make([]byte, n)
		f.w = copy(grown, f.buf[f.r:f.w])
		f.r, f.buf = 0, grown
	}
}
