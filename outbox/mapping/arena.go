package mapping

import "github.com/walpost/walpost/outbox"

const (
	minBytes    = 4 << 10
	maxBytes    = 1 << 20 // largest chunk, and what Reset keeps
	minHeaders  = 64
	maxHeaders  = 32 << 10
	headersEach = 3 // of one message
)

// Arena is the memory for what one batch's messages need beyond the values of
// its rows: headers, and the bytes of positions and decoded payloads. The zero
// value is ready. It belongs to whoever owns the batch; it is not safe for
// concurrent use.
//
// What was handed out never moves: when a chunk is full the arena takes a new,
// larger one, and the former lives on for as long as messages refer to it.
type Arena struct {
	bytes   []byte          // the current chunk, up to what is handed out
	headers []outbox.Header // likewise
}

// Reset takes everything back, to be handed out again: no message mapped with
// the arena since the last Reset may be in use any more. It keeps one chunk of
// each kind, at most 1 MiB of bytes and the headers of some 10,000 messages,
// however large a batch was.
func (a *Arena) Reset() {
	a.bytes = a.bytes[:0]
	clear(a.headers) // they refer to the rows' memory
	a.headers = a.headers[:0]
}

// takeBytes hands out n bytes of any content, never nil.
func (a *Arena) takeBytes(n int) []byte {
	if n == 0 {
		return []byte{}
	}
	if n > maxBytes/4 {
		return make([]byte, n) // would waste the rest of a chunk, and be kept for good
	}
	if cap(a.bytes)-len(a.bytes) < n {
		a.bytes = make([]byte, 0, nextChunk(cap(a.bytes), n, minBytes, maxBytes))
	}
	from := len(a.bytes)
	a.bytes = a.bytes[:from+n]
	return a.bytes[from : from+n : from+n]
}

// takeHeaders hands out the headers of one message, empty.
func (a *Arena) takeHeaders() []outbox.Header {
	if cap(a.headers)-len(a.headers) < headersEach {
		a.headers = make([]outbox.Header, 0, nextChunk(cap(a.headers), headersEach, minHeaders, maxHeaders))
	}
	from := len(a.headers)
	a.headers = a.headers[:from+headersEach]
	return a.headers[from : from+headersEach : from+headersEach]
}

// nextChunk is twice the last chunk, within bounds, and at least need: so a
// batch takes few chunks, and from the second such batch on none.
func nextChunk(last, need, least, most int) int {
	return max(need, min(max(2*last, least), most))
}
