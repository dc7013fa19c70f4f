package model

import (
	"fmt"
	"slices"
	"strings"
)

// key tells states apart: two with the same key have the same future. It holds
// what is outside of the relays, and what each relay was told since its life
// began, from which what it knows follows. What a killed one knew is gone.
//
// It is also asked for the key of the state after the death of an instance.
func (w *world) key(killed *instance) string {
	b := make([]byte, 0, 512)
	live := slices.DeleteFunc(slices.Clone(w.instances), func(i *instance) bool { return i == killed })
	left := w.left
	if killed != nil {
		left.Kills--
	}
	b = fmt.Append(b, left, "|pg", w.pg.confirmed)
	if left.ServerCrashes > 0 {
		b = fmt.Append(b, w.pg.durable)
	}
	if h := w.pg.holder; h != nil && h.inst != killed {
		b = fmt.Append(b, "held", slices.Index(live, h.inst))
	}
	b = w.kafka.key(b, killed)
	for _, inst := range live {
		b = inst.key(b)
	}
	if len(live) == 0 {
		b = append(b, fresh...)
	}
	return string(b)
}

// fresh is the key of an instance that has just started.
const fresh = "|inst before-marks,"

func (inst *instance) key(b []byte) []byte {
	b = append(b, "|inst "...)
	names := make([]string, 0, 4)
	for _, p := range inst.parked {
		names = append(names, string(p.point))
	}
	slices.Sort(names)
	for _, n := range names {
		b = append(append(b, n...), ',')
	}
	if inst.source == nil && inst.session == nil && len(inst.known.opening) == 0 {
		return b
	}
	if s := inst.source; s != nil {
		b = fmt.Append(b, s.connected, s.noticed, s.waiting, s.next)
	}
	if s := inst.session; s != nil {
		b = s.key(b)
	}
	k := &inst.known
	b = append(append(append(b, k.opening...), ' '), k.reads...)
	if inst.world.scenario.bounds.exact {
		b = append(b, k.all...)
	}
	b = append(fmt.Append(b, k.settled, k.confirmed, k.failed), k.commit...)
	return b
}

// key is what a session has on its way, and what it knows of Kafka.
func (s *session) key(b []byte) []byte {
	b = fmt.Append(b, s.over, s.unsettled, s.fenced(), s.ready, s.floors.known, s.floors.next, s.floors.points)
	b = s.traffic(b)
	for _, t := range s.tails {
		if t != nil && !t.passed {
			b = fmt.Append(b, t.newest)
			for _, e := range s.inst.world.order {
				b = t.key(b, e)
			}
		}
		b = append(b, ';')
	}
	return b
}

func (t *tail) key(b []byte, e *event) []byte {
	if at, held := t.events[e]; held {
		b = fmt.Append(b, e.id, at, " ")
	}
	if at, skipped := t.last[e.key]; skipped {
		b = fmt.Append(b, "<", at)
	}
	if t.sent[e.key] {
		b = append(b, '+')
	}
	return b
}

func (k *kafka) key(b []byte, killed *instance) []byte {
	for _, log := range k.logs {
		b = append(b, '|')
		for _, r := range log {
			b = append(b, r.event.id...)
			if r.late {
				b = append(b, '!')
			}
			if r.open != nil {
				b = append(b, '?')
			}
		}
	}
	r := k.record()
	b = fmt.Append(b, "|", uint64(r.Confirmed))
	if r.Last != nil {
		b = append(b, r.Last.ID...)
	}
	if k.floors != nil {
		b = fmt.Append(b, *k.floors)
	}
	var bytes []string
	for _, s := range k.sessions {
		if (s.gone() || s.inst == killed) && !s.silent() {
			bytes = append(bytes, string(s.traffic(nil)))
		}
	}
	slices.Sort(bytes)
	return append(append(b, '|'), strings.Join(bytes, "/")...)
}

// traffic is what a session has on its way, and whether it comes too late.
func (s *session) traffic(b []byte) []byte {
	for p, q := range s.queues {
		b = append(b, ';')
		if s.epoch < s.kafka.readBy[p] {
			b = append(b, '!')
		}
		for _, o := range q {
			b = append(b, o.event.id...)
			if o.midTail {
				b = append(b, '~')
			}
		}
	}
	return b
}
