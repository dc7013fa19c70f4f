//nolint:thelper // stories are tests, not helpers: a failure belongs to their lines
package sinktest

import (
	"context"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/walpost/walpost/outbox"
	"github.com/walpost/walpost/sink"
)

func rejectedAlone(t *testing.T, h Harness) {
	for name, poison := range h.Poison {
		t.Run(name, func(t *testing.T) {
			topic := h.Topic(t, 2)
			p, _ := open(t, h, "orders")
			msgs := messages(topic, 9, 3)
			p.number(msgs)
			bad := 4
			poison(&msgs[bad])

			n, err := p.Send(t.Context(), msgs)
			var rejected *sink.Rejected
			if n != bad || !errors.As(err, &rejected) {
				t.Fatalf("send took %d of %d: %v; want %d and a rejection", n, len(msgs), err, bad)
			}
			if rejected.Pos != msgs[bad].Pos || rejected.ID != string(msgs[bad].ID) {
				t.Errorf("event %s at %s was condemned, not %s at %s", rejected.ID, rejected.Pos, msgs[bad].ID, msgs[bad].Pos)
			}
			healthy := append(append([]outbox.Message(nil), msgs[:bad]...), msgs[bad+1:]...)
			for i := range healthy {
				healthy[i].Seq = uint64(i) // #nosec G115 -- small
			}
			if n, err := p.Send(t.Context(), healthy[bad:]); err != nil || n != len(healthy)-bad {
				t.Fatalf("after the rejection %d of %d were taken: %v", n, len(healthy)-bad, err)
			}
			p.show(t, uint64(len(healthy)))
			if diff := cmp.Diff(valuesByKey(healthy), byKey(h.await(t, topic, len(healthy)))); diff != "" {
				t.Errorf("values by key (-sent +published):\n%s", diff)
			}
		})
	}
}

// closeSettles: an atomic session discards what it has settled and not
// committed.
func closeSettles(t *testing.T, h Harness) {
	topic := h.Topic(t, 3)
	p, _ := open(t, h, "orders")
	const n = 1000
	p.send(t, messages(topic, n, 10)...)
	if err := p.Close(t.Context()); err != nil {
		t.Fatalf("close: %v", err)
	}
	if got := p.settled.count(); got != n {
		t.Errorf("%d of %d settled when Close returned", got, n)
	}
	visible := n
	if p.sink.Atomic() {
		visible = 0
	}
	if got := len(h.await(t, topic, visible)); got != visible {
		t.Errorf("a consumer finds %d of %d", got, visible)
	}
	<-p.Done()
	if err := p.Err(); err != nil {
		t.Errorf("after a clean close the session's error is %v", err)
	}
}

func closeAbandons(t *testing.T, h Harness) {
	topic := h.Topic(t, 3)
	p, _ := open(t, h, "orders")
	p.send(t, messages(topic, 1000, 10)...)
	ended, end := context.WithCancel(t.Context())
	end()

	err := p.Close(ended)
	settled := p.settled.count()
	<-p.Done()
	if err == nil && settled != 1000 {
		t.Errorf("close has no error though only %d of 1000 were settled", settled)
	}

	// A successor works at once, and hears nothing of the old session. (What had
	// left the machine before may still be published: no sink can help that.)
	successor, _ := open(t, h, "orders")
	successor.send(t, messages(topic, 10, 10)...)
	successor.show(t, 10)
	if got := p.settled.count(); got != settled {
		t.Errorf("%d were settled when Close returned, %d later", settled, got)
	}
	visible := settled + 10
	if p.sink.Atomic() {
		visible = 10 // the old session's are gone
	}
	if got := len(h.await(t, topic, visible)); got != visible && p.sink.Atomic() {
		t.Errorf("a consumer finds %d, not the %d of the successor", got, visible)
	}
}

func closedTakesNothing(t *testing.T, h Harness) {
	topic := h.Topic(t, 1)
	p, _ := open(t, h, "orders")
	p.send(t, message(topic, "k", 0))
	if err := p.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n, err := p.Send(t.Context(), messages(topic, 3, 1)); n != 0 || err == nil {
		t.Errorf("a closed session took %d messages: %v", n, err)
	}
	if _, err := p.Newest(t.Context(), "cluster/database/orders/0"); err == nil {
		t.Error("a closed session looked for the newest event")
	}
	if err := p.Commit(t.Context(), 1, marksOf("position", "late")); err == nil {
		t.Error("a closed session committed")
	}
	if err := p.Close(t.Context()); err != nil {
		t.Errorf("a second close: %v", err)
	}
}

func sessionAfterSession(t *testing.T, h Harness) {
	topic := h.Topic(t, 2)
	s := h.Process(t, "orders")
	msgs := messages(topic, 30, 4)
	for i := range 3 {
		p, _ := openOn(t, s)
		p.send(t, msgs[i*10:(i+1)*10]...)
		p.show(t, 10)
		if err := p.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(valuesByKey(msgs), byKey(h.await(t, topic, len(msgs)))); diff != "" {
		t.Errorf("values by key (-sent +published):\n%s", diff)
	}
}

// successorSkips: the predecessor dies with a part of what it published
// committed. Its successor is given everything after that again. An atomic
// predecessor has published no more than it has committed.
func successorSkips(t *testing.T, h Harness) {
	topic := h.Topic(t, 3)
	msgs := identified(messages(topic, 300, 7), "cluster/database/orders/0")
	others := identified(messages(topic, 300, 7), "cluster/database/trainings/0")
	stranger, _ := open(t, h, "trainings")
	stranger.send(t, others...) // equal but for their source
	stranger.show(t, 300)
	first, _ := open(t, h, "orders")
	first.send(t, msgs[:100]...)
	first.awaitSettled(t, 100)
	first.commit(t, marksOf("position", "100"))
	first.send(t, msgs[100:200]...)
	first.awaitSettled(t, 200)

	successor, _ := open(t, h, "orders")
	successor.send(t, msgs[100:150]...)
	successor.send(t, msgs[150:]...)
	successor.awaitSettled(t, 200)
	successor.commit(t, marksOf("position", "300"))
	duplicates := 100
	if successor.sink.Atomic() {
		duplicates = 0
	}
	if got := successor.settled.duplicates(); got != duplicates {
		t.Errorf("%d messages are said to be duplicates, %d are", got, duplicates)
	}
	if wrongs := successor.settled.wrongs(); len(wrongs) > 0 {
		t.Error(wrongs)
	}
	if diff := cmp.Diff(valuesByKey(append(others, msgs...)), byKey(h.await(t, topic, 600))); diff != "" {
		t.Errorf("values by key (-sent +published):\n%s", diff)
	}
}

// newestKnown: a predecessor dies with a part of what it published committed.
// What an atomic sink has not committed was never published.
func newestKnown(t *testing.T, h Harness) {
	const source = "cluster/database/orders/0"
	topics := []string{h.Topic(t, 3), h.Topic(t, 1)}
	msgs := identified(messages(topics[0], 100, 7), source)
	for i := range msgs {
		msgs[i].Topic = topics[i/60]
	}
	first, _ := open(t, h, "orders")
	wantNewest(t, first, source, outbox.Position{})
	first.send(t, msgs[:50]...)
	first.awaitSettled(t, 50)
	first.commit(t, marksOf("position", "50"))
	first.send(t, msgs[50:]...)
	first.awaitSettled(t, 100)

	successor, _ := open(t, h, "orders")
	wantNewest(t, successor, "cluster/database/another/0", outbox.Position{})
	newest := msgs[99].Pos
	if successor.sink.Atomic() {
		newest = outbox.Position{}
	}
	wantNewest(t, successor, source, newest)
	successor.send(t, msgs[50:]...)
	successor.awaitSettled(t, 50)
}

func wantNewest(t *testing.T, p *process, source string, want outbox.Position) {
	t.Helper()
	if got, err := p.Newest(t.Context(), source); err != nil || got != want {
		t.Errorf("the newest event of %s is %s, want %s (%v)", source, got, want, err)
	}
}

func newestEndedContext(t *testing.T, h Harness) {
	p, _ := open(t, h, "orders")
	ended, end := context.WithCancel(t.Context())
	end()
	if _, err := p.Newest(ended, "cluster/database/orders/0"); !errors.Is(err, context.Canceled) {
		t.Errorf("newest: %v", err)
	}
	<-p.Done()
}

func sendEndedContext(t *testing.T, h Harness) {
	topic := h.Topic(t, 2)
	p, _ := open(t, h, "orders")
	msgs := messages(topic, 200, 4)
	p.send(t, msgs[:100]...)
	why := errors.New("the reason of this test")
	ended, end := context.WithCancelCause(t.Context())
	end(why)
	p.number(msgs[100:])
	n, err := p.Send(ended, msgs[100:])
	p.goOn(t, h, msgs, 100+n, err, why)
}

func sendContextEnds(t *testing.T, h Harness) {
	topic := h.Topic(t, 2)
	p, _ := open(t, h, "orders")
	msgs := messages(topic, 20_000, 4)
	p.number(msgs)
	why := errors.New("the reason of this test")
	ctx, end := context.WithCancelCause(t.Context())
	go func() {
		select {
		case <-p.settled.reached(1):
		case <-p.Done():
		}
		end(why)
	}()
	n, err := p.Send(ctx, msgs)
	p.goOn(t, h, msgs, n, err, why)
}

// goOn checks what Send promises when its context has ended because of why, after
// it took msgs[:taken] and returned err: the session works as if it had been
// called with these alone, or it has ended.
func (p *process) goOn(t *testing.T, h Harness, msgs []outbox.Message, taken int, err, why error) {
	if err == nil && taken != len(msgs) {
		t.Errorf("%d of %d taken without an error", taken, len(msgs))
	}
	select {
	case <-p.Done():
		if !errors.Is(err, p.Err()) || !errors.Is(err, why) {
			t.Errorf("send: %v; the session has ended with %v, its context with %v", err, p.Err(), why)
		}
		return
	default:
	}
	if err != nil && !errors.Is(err, why) {
		t.Errorf("send: %v; its context has ended with %v", err, why)
	}
	if n, err := p.Send(t.Context(), msgs[taken:]); err != nil || n != len(msgs)-taken {
		t.Fatalf("the session lives, but took %d of the %d left: %v", n, len(msgs)-taken, err)
	}
	p.show(t, uint64(len(msgs)))
	if diff := cmp.Diff(valuesByKey(msgs), byKey(h.await(t, msgs[0].Topic, len(msgs)))); diff != "" {
		t.Errorf("values by key (-sent +published):\n%s", diff)
	}
}

func commitEndedContext(t *testing.T, h Harness) {
	p, _ := open(t, h, "orders")
	ended, end := context.WithCancel(t.Context())
	end()
	if err := p.Commit(ended, 0, marksOf("position", "1")); !errors.Is(err, context.Canceled) {
		t.Errorf("commit: %v", err)
	}
	<-p.Done()
	if p.Err() == nil {
		t.Error("the session has ended without a reason")
	}
}
