//nolint:thelper // stories are tests, not helpers: a failure belongs to their lines
package sinktest

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func marksRoundTrip(t *testing.T, h Harness) {
	first, marks := open(t, h, "orders")
	if len(marks) != 0 {
		t.Fatalf("a new pipeline has marks: %q", marks)
	}
	topic := h.Topic(t, 2)
	first.commit(t, marksOf("position", "1", "parked/a", "x", "parked/b", "y"))
	first.send(t, messages(topic, 10, 3)...)
	first.awaitSettled(t, 10)
	first.commit(t, marksOf("position", "10"))
	first.commit(t, map[string][]byte{"parked/a": nil, "empty": {}})
	if err := first.Close(t.Context()); err != nil {
		t.Fatal(err)
	}

	want := marksOf("position", "10", "parked/b", "y", "empty", "")
	_, found := open(t, h, "orders")
	if diff := cmp.Diff(want, found); diff != "" {
		t.Errorf("marks (-committed +found):\n%s", diff)
	}
}

func marksBesideSession(t *testing.T, h Harness) {
	p, _ := open(t, h, "orders")
	reader := h.Process(t, "orders")
	for _, value := range []string{"1", "2", "3"} {
		p.commit(t, marksOf("position", value))
		found, err := reader.Marks(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(marksOf("position", value), found); diff != "" {
			t.Fatalf("marks (-committed +found):\n%s", diff)
		}
	}
	p.commit(t, marksOf("position", "4")) // reading has fenced nobody
}

func marksOfNothing(t *testing.T, h Harness) {
	marks, err := h.Process(t, "brand_new").Marks(t.Context())
	if err != nil || marks == nil || len(marks) != 0 {
		t.Errorf("marks of a pipeline that has written none: %q, %v", marks, err)
	}
}

func fencing(t *testing.T, h Harness) {
	old, _ := open(t, h, "orders")
	old.commit(t, marksOf("position", "1"))

	successor, found := open(t, h, "orders")
	if diff := cmp.Diff(marksOf("position", "1"), found); diff != "" {
		t.Errorf("the successor's marks (-committed +found):\n%s", diff)
	}
	if err := old.Commit(t.Context(), 0, marksOf("position", "zombie")); err == nil {
		t.Error("the fenced session committed")
	}
	<-old.Done()
	if old.Err() == nil {
		t.Error("the fenced session has ended without a reason")
	}

	successor.commit(t, marksOf("position", "2"))
	if err := successor.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	_, found = open(t, h, "orders")
	if diff := cmp.Diff(marksOf("position", "2"), found); diff != "" {
		t.Errorf("marks in the end (-committed +found):\n%s", diff)
	}
}

func pipelinesApart(t *testing.T, h Harness) {
	a, _ := open(t, h, "orders")
	b, found := open(t, h, "trainings")
	if len(found) != 0 {
		t.Errorf("the second pipeline starts with marks: %q", found)
	}
	a.commit(t, marksOf("position", "a"))
	b.commit(t, marksOf("position", "b"))
	a.commit(t, marksOf("more", "a")) // the other has not fenced it
	for pipeline, want := range map[string]map[string][]byte{
		"orders":    marksOf("position", "a", "more", "a"),
		"trainings": marksOf("position", "b"),
	} {
		found, err := h.Process(t, pipeline).Marks(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, found); diff != "" {
			t.Errorf("marks of %s (-committed +found):\n%s", pipeline, diff)
		}
	}
}

func commitBesideSend(t *testing.T, h Harness) {
	topic, other := h.Topic(t, 3), h.Topic(t, 3)
	p, _ := open(t, h, "orders")
	stop, stopped := make(chan struct{}), make(chan error, 1)
	go func() {
		for {
			if err := p.Commit(t.Context(), p.settled.prefix(), marksOf("position", "moving")); err != nil {
				stopped <- err
				return
			}
			select {
			case <-stop:
				stopped <- nil
				return
			default:
			}
		}
	}()
	for range 50 {
		p.send(t, messages(topic, 20, 5)...)
		p.send(t, messages(other, 20, 5)...)
	}
	p.awaitSettled(t, p.seq)
	close(stop)
	if err := <-stopped; err != nil {
		t.Errorf("commit: %v", err)
	}
	if wrongs := p.settled.wrongs(); len(wrongs) > 0 {
		t.Error(wrongs)
	}
}
