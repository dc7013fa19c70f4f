package replication

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/jackc/pgx/v5/pgproto3"
	"pgregory.net/rapid"
)

// frame lays a protocol message out as the server sends it.
func frame(kind byte, body []byte) []byte {
	b := binary.BigEndian.AppendUint32([]byte{kind}, uint32(len(body)+4))
	return append(b, body...)
}

// step is what one Read of a chunked source does.
type step struct {
	data []byte
	err  error
}

// chunked is a connection whose reads return what the script says.
type chunked struct{ steps []step }

func (c *chunked) Read(p []byte) (int, error) {
	if len(c.steps) == 0 {
		return 0, io.EOF
	}
	s := &c.steps[0]
	n := copy(p, s.data)
	if s.data = s.data[n:]; len(s.data) > 0 {
		return n, nil
	}
	err := s.err
	c.steps = c.steps[1:]
	return n, err
}

// messages takes them all until the source ends, as text.
func messages(t rapidOrTest, f *frames) []string {
	t.Helper()
	var got []string
	for {
		kind, body, err := f.peek()
		if errors.Is(err, io.EOF) {
			return got
		}
		if err != nil {
			t.Fatalf("peek: %v", err)
		}
		if !f.ready() {
			t.Fatalf("not ready after peek")
		}
		got = append(got, string(kind)+string(body))
		f.skip()
	}
}

// rapidOrTest is what *testing.T and *rapid.T share.
type rapidOrTest interface {
	Helper()
	Fatalf(format string, args ...any)
}

func TestFramesAtEverySplit(t *testing.T) {
	input := bytes.Join([][]byte{frame('d', []byte("hello")), frame('N', nil), frame('d', []byte("x"))}, nil)
	want := "[dhello N dx]"
	for cut := range len(input) + 1 {
		src := &chunked{steps: []step{{data: input[:cut]}, {data: input[cut:]}}}
		if got := fmt.Sprint(messages(t, newFrames(src))); got != want {
			t.Errorf("split at %d: %s, want %s", cut, got, want)
		}
	}
	for name, src := range map[string]io.Reader{
		"one byte at a time": iotest.OneByteReader(bytes.NewReader(input)),
		"half":               iotest.HalfReader(bytes.NewReader(input)),
		"data with error":    iotest.DataErrReader(bytes.NewReader(input)),
	} {
		if got := fmt.Sprint(messages(t, newFrames(src))); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
}

func TestFramesFillTheBufferToTheBrim(t *testing.T) {
	// The second message begins so close to the buffer's end that its header
	// is torn apart by it, at every place in turn.
	for short := range frameHeader + 2 {
		first := strings.Repeat("a", readBuffer-frameHeader-short)
		input := append(frame('d', []byte(first)), frame('d', []byte("second"))...)
		got := messages(t, newFrames(bytes.NewReader(input)))
		if len(got) != 2 || got[0] != "d"+first || got[1] != "dsecond" {
			t.Errorf("%d bytes short of the end: %d messages, last %.20q", short, len(got), got[len(got)-1])
		}
	}
}

func TestLargeFrameGrowsAndShrinksAgain(t *testing.T) {
	large := bytes.Repeat([]byte("0123456789"), readBuffer/4)
	input := bytes.Join([][]byte{frame('d', []byte("before")), frame('d', large), frame('d', []byte("after"))}, nil)
	f := newFrames(bytes.NewReader(input))
	for i, want := range []string{"before", string(large), "after"} {
		kind, body, err := f.peek()
		if err != nil || kind != 'd' || string(body) != want {
			t.Fatalf("message %d: %c of %d bytes, %v", i, kind, len(body), err)
		}
		f.skip()
		if len(f.buf) != readBuffer {
			t.Fatalf("after message %d the buffer has %d bytes, want %d", i, len(f.buf), readBuffer)
		}
	}
}

func TestTimeoutInTheMiddleIsResumable(t *testing.T) {
	input := bytes.Join([][]byte{frame('d', []byte("hello")), frame('d', []byte("world"))}, nil)
	for cut := range input {
		src := &chunked{steps: []step{
			{data: input[:cut], err: os.ErrDeadlineExceeded}, // with the bytes before it
			{err: os.ErrDeadlineExceeded},                    // and alone
			{data: input[cut:]},
		}}
		f := newFrames(src)
		var got []string
		timeouts := 0
		for len(got) < 2 {
			kind, body, err := f.peek()
			if errors.Is(err, os.ErrDeadlineExceeded) {
				timeouts++
				continue
			}
			if err != nil {
				t.Fatalf("cut at %d: %v", cut, err)
			}
			got = append(got, string(kind)+string(body))
			f.skip()
		}
		if fmt.Sprint(got) != "[dhello dworld]" || timeouts == 0 {
			t.Errorf("cut at %d: %v after %d timeouts", cut, got, timeouts)
		}
	}
}

func TestReadIsResumableToo(t *testing.T) {
	input := frame('R', []byte("0123456789"))
	for cut := range input {
		f := newFrames(&chunked{steps: []step{{data: input[:cut], err: os.ErrDeadlineExceeded}, {data: input[cut:]}}})
		var got []byte
		for len(got) < len(input) {
			var p [3]byte
			n, err := f.Read(p[:])
			if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatalf("cut at %d: %v", cut, err)
			}
			got = append(got, p[:n]...)
		}
		if !bytes.Equal(got, input) {
			t.Errorf("cut at %d: %q", cut, got)
		}
	}
}

func TestNonsenseLengths(t *testing.T) {
	for _, length := range []uint32{0, 3, maxFrame + 1, 0xffffffff} {
		input := append(binary.BigEndian.AppendUint32([]byte{'d'}, length), "rest"...)
		f := newFrames(bytes.NewReader(input))
		_, _, err := f.peek()
		wantCondition(t, err, "decode_failed")
		if !f.ready() {
			t.Errorf("length %d: the error would be waited for", length)
		}
		_, err = newFrames(bytes.NewReader(input)).Read(make([]byte, 64))
		wantCondition(t, err, "decode_failed")
	}
}

func TestNotReady(t *testing.T) {
	whole := frame('d', []byte("hello"))
	for n := range whole {
		f := newFrames(bytes.NewReader(whole[:n]))
		if _, _, err := f.peek(); !errors.Is(err, io.EOF) {
			t.Errorf("peek of %d bytes: %v, want EOF", n, err)
		}
		if f.ready() {
			t.Errorf("ready with %d of %d bytes", n, len(whole))
		}
	}
}

func TestReadGivesNoMoreThanTheCurrentMessage(t *testing.T) {
	first, second := frame('R', []byte("first")), frame('d', []byte("second"))
	f := newFrames(bytes.NewReader(append(bytes.Clone(first), second...)))
	p := make([]byte, 4096)
	n, err := f.Read(p)
	if err != nil || !bytes.Equal(p[:n], first) {
		t.Fatalf("Read = %q, %v; want the first message alone", p[:n], err)
	}
	if kind, body, err := f.peek(); err != nil || kind != 'd' || string(body) != "second" {
		t.Fatalf("peek = %c %q, %v", kind, body, err)
	}
}

// The way a connection goes: pgx reads the beginning of the conversation
// through the frames, and the stream the rest, although all of it has arrived
// in one piece.
func TestFrontendLeavesTheStreamAlone(t *testing.T) {
	large := strings.Repeat("v", 3*readBuffer)
	var wire []byte
	for _, m := range []pgproto3.BackendMessage{
		&pgproto3.AuthenticationOk{},
		&pgproto3.ParameterStatus{Name: "server_version", Value: large},
		&pgproto3.ReadyForQuery{TxStatus: 'I'},
		&pgproto3.CopyBothResponse{},
		&pgproto3.CopyData{Data: []byte("one")},
		&pgproto3.CopyData{Data: []byte("two")},
	} {
		var err error
		if wire, err = m.Encode(wire); err != nil {
			t.Fatal(err)
		}
	}
	f := newFrames(bytes.NewReader(wire))
	front := pgproto3.NewFrontend(f, io.Discard)
	for {
		msg, err := front.Receive()
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := msg.(*pgproto3.CopyBothResponse); ok {
			break
		}
	}
	if front.ReadBufferLen() != 0 {
		t.Fatalf("the frontend holds %d bytes of the stream", front.ReadBufferLen())
	}
	if got := fmt.Sprint(messages(t, f)); got != "[done dtwo]" {
		t.Fatalf("stream = %s", got)
	}
}

// Whatever the messages and however the network cuts them up, with timeouts at
// any place, the same messages come out.
func TestAnyChunkingYieldsTheSameFrames(t *testing.T) {
	size := rapid.OneOf(rapid.IntRange(0, 40), rapid.IntRange(readBuffer-20, readBuffer+20), rapid.IntRange(0, 3*readBuffer))
	rapid.Check(t, func(t *rapid.T) {
		var want []string
		var input []byte
		for i, n := range rapid.SliceOfN(size, 0, 12).Draw(t, "sizes") {
			body := bytes.Repeat([]byte{byte('a' + i)}, n)
			want = append(want, "d"+string(body))
			input = append(input, frame('d', body)...)
		}
		src := &chunked{}
		for len(input) > 0 {
			n := min(rapid.OneOf(rapid.IntRange(1, 9), rapid.IntRange(1, 2*readBuffer)).Draw(t, "chunk"), len(input))
			src.steps = append(src.steps, step{data: input[:n]})
			input = input[n:]
		}
		got := messages(t, newFrames(src))
		if len(got) != len(want) {
			t.Fatalf("%d messages, want %d", len(got), len(want))
		}
		for i := range want {
			if got[i] != want[i] {
				t.Fatalf("message %d of %d bytes, want %d", i, len(got[i]), len(want[i]))
			}
		}
	})
}

func FuzzFrames(f *testing.F) {
	f.Add(append(frame('d', []byte("hello")), frame('N', nil)...), uint8(3))
	f.Add([]byte{'d', 0xff, 0xff, 0xff, 0xff}, uint8(1))
	f.Fuzz(func(t *testing.T, input []byte, chunk uint8) {
		if !modest(input) {
			return
		}
		whole := outcome(newFrames(bytes.NewReader(input)))
		src := &chunked{}
		for rest := input; len(rest) > 0; {
			n := min(int(chunk)+1, len(rest))
			src.steps = append(src.steps, step{data: rest[:n], err: os.ErrDeadlineExceeded})
			rest = rest[n:]
		}
		if cut := outcome(newFrames(src)); cut != whole {
			t.Fatalf("in chunks %q, in one piece %q", cut, whole)
		}
	})
}

// modest reports whether no message claims more than a megabyte, which is
// legal, and only slow.
func modest(input []byte) bool {
	for len(input) >= frameHeader {
		n := binary.BigEndian.Uint32(input[1:])
		if n < 4 || n > maxFrame {
			return true // the error ends it
		}
		if n > 1<<20 {
			return false
		}
		input = input[min(len(input), int(n)+1):]
	}
	return true
}

// outcome is everything that comes of an input, its error included. Timeouts
// are passed over.
func outcome(f *frames) string {
	var b strings.Builder
	for {
		kind, body, err := f.peek()
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			continue
		case err != nil:
			return b.String() + err.Error()
		}
		_, _ = fmt.Fprintf(&b, "%c%q ", kind, body)
		f.skip()
	}
}

// wantCondition checks the condition an error puts the relay in.
func wantCondition(t *testing.T, err error, want string) {
	t.Helper()
	var c interface{ Condition() string }
	if !errors.As(err, &c) {
		t.Fatalf("error %v has no condition, want %s", err, want)
	}
	if c.Condition() != want {
		t.Fatalf("condition %s, want %s: %v", c.Condition(), want, err)
	}
}

// retryable reports what an error says of itself, true where it is silent.
func retryable(err error) bool {
	var r interface{ Retryable() bool }
	return !errors.As(err, &r) || r.Retryable()
}
