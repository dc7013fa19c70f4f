//nolint:thelper // stories are tests, not helpers: a failure belongs to their lines
package sinktest

import (
	"errors"
	"maps"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/walpost/walpost/outbox"
	"github.com/walpost/walpost/sink"
)

func invisibleBeforeCommit(t *testing.T, h Harness) {
	topic := h.Topic(t, 3)
	p, _ := open(t, h, "orders")
	for n := range 3 {
		p.send(t, messages(topic, 50, 7)...)
		p.awaitSettled(t, p.seq)
		if got := len(h.Published(t, topic)); got != 50*n {
			t.Errorf("before commit %d a consumer finds %d messages", n, got)
		}
		p.commit(t, nil)
		if got := len(h.await(t, topic, 50*(n+1))); got != 50*(n+1) {
			t.Errorf("after commit %d a consumer finds %d messages", n, got)
		}
	}
}

// visibleTogether: whoever has read marks finds all messages that they cover.
// That it finds no others is for the session that reads them to say.
func visibleTogether(t *testing.T, h Harness) {
	topics := []string{h.Topic(t, 2), h.Topic(t, 1)}
	msgs := messages(topics[0], 40, 5)
	for i := range msgs {
		msgs[i].Topic = topics[i%2]
	}
	p, _ := open(t, h, "orders")
	p.send(t, msgs[:20]...)
	p.commitAll(t, marksOf("position", "20"))
	p.send(t, msgs[20:]...)
	p.awaitSettled(t, 40)
	if found, err := h.Process(t, "orders").Marks(t.Context()); err != nil || string(found["position"]) != "20" {
		t.Errorf("before the second commit the marks are %q, %v", found, err)
	}

	_, found := open(t, h, "orders") // the session dies
	if diff := cmp.Diff(marksOf("position", "20"), found); diff != "" {
		t.Errorf("marks (-committed +found):\n%s", diff)
	}
	var got []Record
	for _, topic := range topics {
		got = append(got, h.await(t, topic, 10)...)
	}
	if diff := cmp.Diff(sortedValues(valuesByKey(msgs[:20])), sortedValues(byKey(got))); diff != "" {
		t.Errorf("values by key (-committed +published):\n%s", diff)
	}
}

// sortedValues are values whose order does not matter: they are of several topics.
func sortedValues(groups map[string][]string) map[string][]string {
	groups = maps.Clone(groups)
	for key, values := range groups {
		groups[key] = slices.Sorted(slices.Values(values))
	}
	return groups
}

func commitSettles(t *testing.T, h Harness) {
	topic := h.Topic(t, 3)
	p, _ := open(t, h, "orders")
	for range 5 {
		p.send(t, messages(topic, 1000, 10)...)
		p.commitAll(t, marksOf("position", "moving"))
		if got := uint64(p.settled.count()); got != p.seq { // #nosec G115 -- not negative
			t.Errorf("%d of %d are settled after the commit", got, p.seq)
		}
	}
	if wrongs := p.settled.wrongs(); len(wrongs) > 0 {
		t.Error(wrongs)
	}
}

func uncommittedIsGone(t *testing.T, h Harness) {
	topic := h.Topic(t, 2)
	msgs := messages(topic, 30, 4)
	first, _ := open(t, h, "orders")
	first.send(t, msgs[:10]...)
	first.commitAll(t, marksOf("position", "10"))
	first.send(t, msgs[10:20]...)
	first.awaitSettled(t, 20)

	second, _ := open(t, h, "orders") // the first one has died
	second.send(t, msgs[10:20]...)
	if err := second.Close(t.Context()); err != nil {
		t.Fatal(err)
	}

	third, found := open(t, h, "orders")
	if diff := cmp.Diff(marksOf("position", "10"), found); diff != "" {
		t.Errorf("marks (-committed +found):\n%s", diff)
	}
	third.send(t, msgs[10:]...)
	third.show(t, 20)
	if diff := cmp.Diff(valuesByKey(msgs), byKey(h.await(t, topic, 30))); diff != "" {
		t.Errorf("values by key (-sent +published):\n%s", diff)
	}
}

func fencedPublishesNothing(t *testing.T, h Harness) {
	topic := h.Topic(t, 2)
	msgs := messages(topic, 30, 4)
	old, _ := open(t, h, "orders")
	old.send(t, msgs[:10]...)
	old.awaitSettled(t, 10)

	successor, _ := open(t, h, "orders")
	old.number(msgs[10:20])
	_, _ = old.Send(t.Context(), msgs[10:20]) // which may not have noticed yet
	if err := old.Commit(t.Context(), 20, marksOf("position", "zombie")); err == nil {
		t.Error("the fenced session committed")
	}
	<-old.Done()
	if old.Err() == nil {
		t.Error("the fenced session has ended without a reason")
	}
	successor.send(t, msgs[20:]...)
	successor.commitAll(t, marksOf("position", "30"))
	if diff := cmp.Diff(valuesByKey(msgs[20:]), byKey(h.await(t, topic, 10))); diff != "" {
		t.Errorf("values by key (-sent by the successor +published):\n%s", diff)
	}
}

// rejectedLeavesWhole: what is taken before a rejected message is whole
// transactions.
func rejectedLeavesWhole(t *testing.T, h Harness) {
	for name, poison := range h.Poison {
		t.Run(name, func(t *testing.T) {
			topic := h.Topic(t, 2)
			p, _ := open(t, h, "orders")
			msgs := messages(topic, 6, 3)
			for i := range msgs {
				msgs[i].Pos = outbox.Position{Generation: 1, Commit: uint64(1000 + i/3), Index: uint32(i % 3)} // #nosec G115 -- small
			}
			p.number(msgs)
			poison(&msgs[4])

			n, err := p.Send(t.Context(), msgs)
			var rejected *sink.Rejected
			if n != 3 || !errors.As(err, &rejected) || rejected.Pos != msgs[4].Pos {
				t.Fatalf("send took %d: %v; want the 3 of the first transaction, and a rejection", n, err)
			}
			p.seq = 3
			p.commitAll(t, marksOf("position", "3"))
			if diff := cmp.Diff(valuesByKey(msgs[:3]), byKey(h.await(t, topic, 3))); diff != "" {
				t.Errorf("values by key (-sent +published):\n%s", diff)
			}
		})
	}
}

func commitOfLittle(t *testing.T, h Harness) {
	topic := h.Topic(t, 1)
	p, _ := open(t, h, "orders")
	p.commitAll(t, nil)
	p.commitAll(t, marksOf("position", "0"))
	p.send(t, message(topic, "k", 0))
	p.commitAll(t, nil)
	if got := len(h.await(t, topic, 1)); got != 1 {
		t.Errorf("a consumer finds %d messages", got)
	}
	marks, err := h.Process(t, "orders").Marks(t.Context())
	if err != nil || string(marks["position"]) != "0" {
		t.Errorf("marks %q, %v", marks, err)
	}
}

// commitAll commits everything sent, settled or not.
func (p *process) commitAll(t *testing.T, marks map[string][]byte) {
	t.Helper()
	if err := p.Commit(t.Context(), p.seq, marks); err != nil {
		t.Fatalf("commit: %v", err)
	}
}
