package harness

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// at is a record of an event, as the relay would have published it.
func at(partition int32, offset int64, e Event) Record {
	return Record{
		Topic: "t", Partition: partition, Offset: offset, Key: []byte(e.Key), Value: []byte(e.Value),
		Headers: []Header{{Key: "id", Value: []byte(e.ID)}},
	}
}

// TestVerifyFindsWhatIsWrong is the verifier's own proof: each history has one
// flaw, and exactly that one must be found.
func TestVerifyFindsWhatIsWrong(t *testing.T) {
	a1, a2, a3 := Event{"a1", "a", "va1"}, Event{"a2", "a", "va2"}, Event{"a3", "a", "va3"}
	b1 := Event{"b1", "b", "vb1"}
	gone := Event{"gone", "a", "x"}
	all := []Record{at(0, 0, a1), at(0, 1, a2), at(0, 2, a3), at(1, 0, b1)}

	tests := map[string]struct {
		records []Record
		want    Report
	}{
		"complete": {all, Report{Records: 4}},
		"nothing":  {nil, Report{Missing: []string{"a1", "a2", "a3", "b1"}}},
		"one missing": {
			[]Record{at(0, 0, a1), at(0, 1, a3), at(1, 0, b1)},
			Report{Records: 3, Missing: []string{"a2"}},
		},
		"rolled back": {
			append([]Record{at(2, 0, gone)}, all...),
			Report{Records: 5, RolledBack: []string{"gone"}},
		},
		"never written": {
			append([]Record{at(2, 0, Event{"z", "z", "z"})}, all...),
			Report{Records: 5, Unknown: []string{"z"}},
		},
		"value altered": {
			[]Record{at(0, 0, a1), at(0, 1, Event{"a2", "a", "other"}), at(0, 2, a3), at(1, 0, b1)},
			Report{Records: 4, Altered: []string{"a2"}},
		},
		"key altered": {
			[]Record{at(0, 0, a1), at(0, 1, a2), at(0, 2, a3), at(1, 0, Event{"b1", "a", "vb1"})},
			Report{Records: 4, Altered: []string{"b1"}},
		},
		"tail sent again": { // harmless: first and last occurrences are in order
			[]Record{at(0, 0, a1), at(0, 1, a2), at(0, 2, a2), at(0, 3, a3), at(1, 0, b1)},
			Report{Records: 5, Duplicates: 1},
		},
		"all sent again": {
			[]Record{at(0, 0, a1), at(0, 1, a2), at(0, 2, a3), at(0, 3, a1), at(0, 4, a2), at(0, 5, a3), at(1, 0, b1)},
			Report{Records: 7, Duplicates: 3},
		},
		"an old event sent again after newer ones": {
			[]Record{at(0, 0, a1), at(0, 1, a2), at(0, 2, a3), at(0, 3, a1), at(1, 0, b1)},
			Report{Records: 5, Duplicates: 1, LastOrder: []string{"a"}},
		},
		"a hole filled late, and all after it sent again": {
			[]Record{at(0, 0, a1), at(0, 1, a3), at(0, 2, a2), at(0, 3, a3), at(1, 0, b1)},
			Report{Records: 5, Duplicates: 1, FirstOrder: []string{"a"}},
		},
		"swapped": {
			[]Record{at(0, 0, a2), at(0, 1, a1), at(0, 2, a3), at(1, 0, b1)},
			Report{Records: 4, LastOrder: []string{"a"}, FirstOrder: []string{"a"}},
		},
		"a key in two partitions": {
			[]Record{at(0, 0, a1), at(0, 1, a2), at(1, 0, a3), at(1, 1, b1)},
			Report{Records: 4, Split: []string{"a"}},
		},
		"no id": {
			append([]Record{{Topic: "t", Key: []byte("a")}}, all...),
			Report{Records: 5, Unknown: []string{""}},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			ledger := NewLedger()
			ledger.Commit(a1, b1)
			ledger.Commit(a2)
			ledger.Discard(gone)
			ledger.Commit(a3)
			test.want.Committed, test.want.Discarded = 4, 1

			got := ledger.Verify(test.records)
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("report (-want +got):\n%s", diff)
			}
			flawed := len(got.Missing)+len(got.RolledBack)+len(got.Unknown)+len(got.Altered)+len(got.Split)+len(got.LastOrder)+len(got.FirstOrder) > 0
			if flawed != (got.Err() != nil) {
				t.Errorf("flawed %v, but error %v", flawed, got.Err())
			}
		})
	}
}

// TestPartialFindsTornTransactions: what counts is whether a transaction is there
// as a whole, not how much of everything is.
func TestPartialFindsTornTransactions(t *testing.T) {
	ledger := NewLedger()
	ledger.Commit(Event{ID: "a1"}, Event{ID: "a2"}, Event{ID: "a3"})
	ledger.Commit(Event{ID: "b1"}, Event{ID: "b2"})
	ledger.Commit(Event{ID: "c1"})
	ledger.Commit()
	for name, test := range map[string]struct{ published, want []string }{
		"nothing":      {nil, nil},
		"whole ones":   {[]string{"b1", "b2", "c1"}, nil},
		"everything":   {[]string{"a1", "a2", "a3", "b1", "b2", "c1"}, nil},
		"first only":   {[]string{"a1", "c1"}, []string{"a2"}},
		"last only":    {[]string{"a3"}, []string{"a1"}},
		"hole":         {[]string{"a1", "a3"}, []string{"a2"}},
		"several torn": {[]string{"a1", "a2", "b2", "c1"}, []string{"a3", "b1"}},
	} {
		t.Run(name, func(t *testing.T) {
			got := ledger.Partial(func(id string) bool { return slices.Contains(test.published, id) })
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("torn (-want +got):\n%s", diff)
			}
		})
	}
}
