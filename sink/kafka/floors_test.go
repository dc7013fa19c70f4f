package kafka

import (
	"encoding/json"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func endsAt(offset int64) func(int32) (int64, error) {
	return func(p int32) (int64, error) { return offset + int64(p), nil }
}

// mustPrepare also tells whether there are floors that are not in the mark.
func mustPrepare(t *testing.T, f *floors, name, id string, partitions int, end func(int32) (int64, error)) ([]*partitionFloor, bool) {
	t.Helper()
	list, err := f.prepare(name, id, partitions, end)
	if err != nil {
		t.Fatal(err)
	}
	return list, f.moved
}

func mustDecode(t *testing.T, mark []byte) *floors {
	t.Helper()
	f, err := decodeFloors(mark)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func mustAdvance(t *testing.T, f *floors, through uint64) []byte {
	t.Helper()
	mark, err := f.advance(through)
	if err != nil {
		t.Fatal(err)
	}
	return mark
}

func TestFloorsOutliveASession(t *testing.T) {
	first := mustDecode(t, nil)
	list, isNew := mustPrepare(t, first, "orders", "id-1", 2, endsAt(100))
	if !isNew {
		t.Error("the floors of a topic never written to are said to be in the record")
	}
	first.add(list[0], 7, 105)
	first.add(list[0], 9, 107)
	mark := mustAdvance(t, first, 8) // message 9 may be sent again: its record lies above the floor
	if want := `{"v":1,"topics":{"orders":{"id":"id-1","next":[105,101]}}}`; string(mark) != want {
		t.Errorf("the mark is %s, want %s", mark, want)
	}
	if again := mustAdvance(t, first, 8); again != nil {
		t.Errorf("nothing has moved, and the mark is written again: %s", again)
	}

	second := mustDecode(t, mark)
	list, isNew = mustPrepare(t, second, "orders", "id-1", 2, func(int32) (int64, error) {
		return 0, errors.New("the end offset is of no interest")
	})
	if isNew || list[0].next != 105 || list[1].next != 101 {
		t.Errorf("new %v, floors %d and %d", isNew, list[0].next, list[1].next)
	}
}

func TestFloorsOfPartitionsAddedToATopic(t *testing.T) {
	f := mustDecode(t, []byte(`{"v":1,"topics":{"orders":{"id":"id-1","next":[5]}}}`))
	list, isNew := mustPrepare(t, f, "orders", "id-1", 3, endsAt(40))
	if !isNew || list[0].next != 5 || list[1].next != 41 || list[2].next != 42 {
		t.Errorf("new %v, floors %d, %d, %d", isNew, list[0].next, list[1].next, list[2].next)
	}
}

func TestATopicWithAnotherIDHasNoFloors(t *testing.T) {
	f := mustDecode(t, []byte(`{"v":1,"topics":{"orders":{"id":"id-1","next":[5000]}}}`))
	_, err := f.prepare("orders", "id-2", 1, endsAt(40))
	if condition, retryable, err := meaning(t, err); condition != condLostRecords || retryable {
		t.Errorf("condition %q, retryable %v: %v", condition, retryable, err)
	}
	if got := f.topics["orders"]; got.id != "id-1" || got.partitions[0].next != 5000 {
		t.Errorf("the floors are now %+v", got)
	}
}

func TestFloorsWithoutTopicIDs(t *testing.T) {
	f := mustDecode(t, []byte(`{"v":1,"topics":{"known":{"id":"id-1","next":[5]},"unknown":{"next":[6]}}}`))
	list, isNew := mustPrepare(t, f, "known", "", 1, endsAt(40))
	if isNew || list[0].next != 5 || f.topics["known"].id != "id-1" {
		t.Errorf("new %v, floor %d, id %q", isNew, list[0].next, f.topics["known"].id)
	}
	list, isNew = mustPrepare(t, f, "unknown", "id-2", 1, endsAt(40))
	if isNew || list[0].next != 6 || f.topics["unknown"].id != "id-2" {
		t.Errorf("new %v, floor %d, id %q", isNew, list[0].next, f.topics["unknown"].id)
	}
}

func TestFloorsThatCannotBeFoundAreNotInvented(t *testing.T) {
	f := mustDecode(t, nil)
	away := errors.New("broker away")
	if _, err := f.prepare("orders", "", 2, func(int32) (int64, error) { return 0, away }); !errors.Is(err, away) {
		t.Errorf("prepare: %v", err)
	}
	if mark := mustAdvance(t, f, 0); mark != nil {
		t.Errorf("a topic without floors is in the mark: %s", mark)
	}
}

func TestFloorsOfANewerVersionStop(t *testing.T) {
	_, err := decodeFloors([]byte(`{"v":2}`))
	condition, retryable, _ := meaning(t, err)
	if condition != condCheckpointTooNew || retryable {
		t.Errorf("condition %s, retryable %v", condition, retryable)
	}
	if _, err := decodeFloors([]byte(`{`)); err == nil {
		t.Error("a mark that is no JSON was accepted")
	}
}

// Whatever the thinning drops, a floor never passes the record of a message
// that may be sent again, and never falls.
func TestFloorIsNeverTooHigh(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := &floors{topics: map[string]*topicFloors{}}
		list, _ := f.prepare("topic", "", 1, endsAt(10))
		p := list[0]
		type record struct {
			seq  uint64
			next int64
		}
		var all []record
		seq, next, through, last := uint64(0), int64(10), uint64(0), int64(10)
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			for range rapid.IntRange(0, 100).Draw(t, "records") {
				seq += rapid.Uint64Range(1, 3).Draw(t, "seq")
				next += rapid.Int64Range(1, 3).Draw(t, "offset")
				all = append(all, record{seq, next})
				f.add(p, seq, next)
			}
			through = rapid.Uint64Range(through, seq+2).Draw(t, "through")
			if _, err := f.advance(through); err != nil {
				t.Fatal(err)
			}
			if p.next < last {
				t.Fatalf("the floor fell from %d to %d", last, p.next)
			}
			if len(p.points) > maxPoints {
				t.Fatalf("%d points are kept", len(p.points))
			}
			last = p.next
			for _, r := range all {
				if r.seq >= through && p.next >= r.next {
					t.Fatalf("floor %d passes message %d at %d though only those below %d count", p.next, r.seq, r.next-1, through)
				}
			}
		}
		f.add(p, seq+1, next+1)
		if _, err := f.advance(seq + 2); err != nil || p.next != next+1 {
			t.Fatalf("with everything settled the floor is %d, the end is %d (%v)", p.next, next+1, err)
		}
	})
}

func TestOffsetsThatGoBackwardsAreIgnored(t *testing.T) {
	f := mustDecode(t, nil)
	list, _ := mustPrepare(t, f, "topic", "", 1, endsAt(10))
	f.add(list[0], 1, 5)
	f.add(list[0], 2, 12)
	f.add(list[0], 3, 12)
	if diff := cmp.Diff([]point{{2, 12}}, list[0].points, cmp.AllowUnexported(point{})); diff != "" {
		t.Errorf("points (-want +got):\n%s", diff)
	}
	if !json.Valid(mustAdvance(t, f, 4)) {
		t.Error("the mark is no JSON")
	}
}
