package outbox_test

import (
	"bytes"
	"math"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/walpost/walpost/outbox"
)

func positions() *rapid.Generator[outbox.Position] {
	return rapid.Custom(func(t *rapid.T) outbox.Position {
		return outbox.Position{
			Generation: rapid.Uint32().Draw(t, "generation"),
			Commit:     rapid.Uint64().Draw(t, "commit"),
			Index:      rapid.Uint32().Draw(t, "index"),
		}
	})
}

// neighbour shares some of p's parts, so that every rank of the comparison is
// exercised.
func neighbour(t *rapid.T, p outbox.Position) outbox.Position {
	q := positions().Draw(t, "q")
	if rapid.Bool().Draw(t, "same generation") {
		q.Generation = p.Generation
	}
	if rapid.Bool().Draw(t, "same commit") {
		q.Commit = p.Commit
	}
	if rapid.Bool().Draw(t, "same index") {
		q.Index = p.Index
	}
	return q
}

func TestPositionTextSortsLikePositions(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := positions().Draw(t, "p")
		q := neighbour(t, p)
		if got, want := strings.Compare(p.String(), q.String()), p.Compare(q); got != want {
			t.Fatalf("texts %s and %s compare %d, positions %d", p, q, got, want)
		}
	})
}

func TestPositionCompare(t *testing.T) {
	low := outbox.Position{Generation: 1, Commit: 10, Index: 3}
	tests := map[string]struct {
		q    outbox.Position
		want int
	}{
		"itself":                           {low, 0},
		"a later generation outranks all":  {outbox.Position{Generation: 2}, -1},
		"a later commit outranks an index": {outbox.Position{Generation: 1, Commit: 11}, -1},
		"a later index":                    {outbox.Position{Generation: 1, Commit: 10, Index: 4}, -1},
		"an earlier index":                 {outbox.Position{Generation: 1, Commit: 10, Index: 2}, 1},
		"an earlier generation":            {outbox.Position{Commit: math.MaxUint64}, 1},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if got := low.Compare(test.q); got != test.want {
				t.Errorf("Compare = %d, want %d", got, test.want)
			}
			if got := test.q.Compare(low); got != -test.want {
				t.Errorf("the other way round = %d, want %d", got, -test.want)
			}
		})
	}
}

func TestPositionText(t *testing.T) {
	tests := map[string]outbox.Position{
		"00000000-0000000000000000-00000000": {},
		"00000001-000000000016b374-0000000a": {Generation: 1, Commit: 0x16b374, Index: 10},
		"ffffffff-ffffffffffffffff-ffffffff": {Generation: math.MaxUint32, Commit: math.MaxUint64, Index: math.MaxUint32},
	}
	for text, p := range tests {
		if got := p.String(); got != text {
			t.Errorf("%+v is written %s, want %s", p, got, text)
		}
	}
}

func TestPositionRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := positions().Draw(t, "p")
		text, err := p.MarshalText()
		if err != nil || len(text) != outbox.PositionLen {
			t.Fatalf("MarshalText = %q, %v", text, err)
		}
		var q outbox.Position
		if err := q.UnmarshalText(text); err != nil || p != q {
			t.Fatalf("%s came back as %+v, %v", text, q, err)
		}
	})
}

func TestPositionAppendTextDoesNotAllocate(t *testing.T) {
	p := outbox.Position{Generation: 1, Commit: 2, Index: 3}
	buf := make([]byte, 0, outbox.PositionLen)
	allocs := testing.AllocsPerRun(100, func() { buf, _ = p.AppendText(buf[:0]) })
	if allocs != 0 {
		t.Errorf("%v allocations", allocs)
	}
}

func TestPositionRejectsGarbage(t *testing.T) {
	const good = "00000001-000000000016b374-0000000a"
	tests := map[string]string{
		"empty":                "",
		"short":                good[1:],
		"long":                 good + "0",
		"upper case":           strings.ToUpper(good),
		"one upper-case digit": "00000001-000000000016B374-0000000a",
		"no hex digit":         "0000000g-000000000016b374-0000000a",
		"sign":                 "+0000001-000000000016b374-0000000a",
		"space":                " 0000001-000000000016b374-0000000a",
		"other separator":      "00000001_000000000016b374-0000000a",
		"separator misplaced":  "000000010-00000000016b374-0000000a",
		"beyond ASCII":         "00000001-000000000016b374-00000é00",
	}
	for name, text := range tests {
		t.Run(name, func(t *testing.T) {
			p := outbox.Position{Generation: 7}
			err := p.UnmarshalText([]byte(text))
			if err == nil {
				t.Fatalf("%q was taken for %+v", text, p)
			}
			if p != (outbox.Position{Generation: 7}) {
				t.Errorf("a failed UnmarshalText left %+v behind", p)
			}
		})
	}
}

// FuzzPositionUnmarshalText: whatever is accepted is what AppendText writes.
func FuzzPositionUnmarshalText(f *testing.F) {
	f.Add([]byte("00000001-000000000016b374-0000000a"))
	f.Add([]byte("00000001-000000000016B374-0000000A"))
	f.Fuzz(func(t *testing.T, text []byte) {
		var p outbox.Position
		if p.UnmarshalText(text) != nil {
			return
		}
		if again, _ := p.MarshalText(); !bytes.Equal(text, again) {
			t.Errorf("%q was accepted but is written %q", text, again)
		}
	})
}

func TestSourceString(t *testing.T) {
	s := outbox.Source{SystemID: "7301234567890123456", Database: "trainings", Pipeline: "open_trainings", Shard: "0"}
	if got, want := s.String(), "7301234567890123456/trainings/open_trainings/0"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// Different sources have different texts even where the database's name holds
// a slash.
func TestSourceStringIsUnambiguous(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		source := rapid.Custom(func(t *rapid.T) outbox.Source {
			return outbox.Source{
				SystemID: rapid.StringMatching(`[0-9]{1,2}`).Draw(t, "system id"),
				Database: rapid.StringMatching(`[a/]{1,3}`).Draw(t, "database"),
				Pipeline: rapid.StringMatching(`[ab]{1,2}`).Draw(t, "pipeline"),
				Shard:    rapid.StringMatching(`[01]`).Draw(t, "shard"),
			}
		})
		a, b := source.Draw(t, "a"), source.Draw(t, "b")
		if (a == b) != (a.String() == b.String()) {
			t.Fatalf("%+v and %+v are both written %s", a, b, a)
		}
	})
}
