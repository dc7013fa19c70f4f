package model

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/walpost/walpost/test/crash"
)

// budget is how many faults of each kind a schedule may hold.
type budget struct {
	Kills         int // of a process; another starts, unless one is there
	Spares        int // started while another lives
	Drops         int // of the slot's holder, by a server that takes it for dead
	Zombies       int // a drop, upon which another is started
	ServerCrashes int
	Refusals      int // of a message, by a broker
	CommitFaults  int // commits that fail, or whose answer is lost
	Impatience    int // of a life that winds up, before everything sent is settled
}

// choice is what may happen next.
type choice struct {
	name  string
	fault bool
	act   func()
	pause time.Duration // afterwards
	kills *instance     // what a kill leads to is known without trying
}

// choices lists what may happen now, in an order that depends on the state
// alone.
func (w *world) choices() []choice {
	w.mu.Lock()
	defer w.mu.Unlock()
	var list []choice
	for _, inst := range w.instances {
		list = append(list, inst.moves()...)
	}
	for _, s := range w.kafka.senders() {
		list = append(list, s.moves()...)
	}
	list = append(list, choice{name: "time passes", act: func() {}, pause: aWhile})
	for _, inst := range w.instances {
		list = append(list, inst.faults()...)
	}
	return append(list, w.faults()...)
}

func (inst *instance) moves() (list []choice) {
	w := inst.world
	slices.SortFunc(inst.parked, func(a, b *parking) int { return strings.Compare(string(a.point), string(b.point)) })
	for _, p := range inst.parked {
		list = append(list, choice{name: fmt.Sprintf("%s goes on at %s", inst.name, p.point), act: func() { inst.goOn(p) }})
	}
	s := inst.source
	if s == nil {
		return list
	}
	if s.connected && s.waiting && !s.noticed && s.next < len(w.items) {
		list = append(list, choice{name: fmt.Sprintf("%s reads %s", inst.name, w.items[s.next]), act: func() { s.yield(1, false) }})
		rest := len(w.items) - s.next
		if w.scenario.bounds.bulk && rest > 1 {
			list = append(list, choice{name: fmt.Sprintf("%s reads all", inst.name), act: func() { s.yield(rest, false) }})
		}
		if w.atomic(inst) && rest > 1 {
			list = append(list, choice{name: fmt.Sprintf("%s reads %s, and more is waiting", inst.name, w.items[s.next]), act: func() { s.yield(1, true) }})
		}
	}
	if !s.connected && !s.noticed {
		list = append(list, choice{name: inst.name + " notices that its stream is over", act: s.notice})
	}
	return list
}

func (it item) String() string {
	if it.commit == 0 {
		return "a keepalive"
	}
	ids := make([]string, len(it.events))
	for i, e := range it.events {
		ids[i] = e.id
	}
	return strings.Join(ids, "+")
}

// senders are the sessions with messages on their way.
func (k *kafka) senders() []*session {
	k.sessions = slices.DeleteFunc(k.sessions, func(s *session) bool { return s.gone() && s.silent() })
	return slices.DeleteFunc(slices.Clone(k.sessions), (*session).silent)
}

func (s *session) gone() bool { return s.over || s.inst.dead }

func (s *session) silent() bool {
	for _, q := range s.queues {
		if len(q) > 0 {
			return false
		}
	}
	return true
}

func (s *session) name() string { return fmt.Sprintf("%s%d", s.inst.name, s.number) }

func (s *session) moves() (list []choice) {
	for p, q := range s.queues {
		if len(q) > 0 && (!s.gone() || s.matters(p)) {
			list = append(list, choice{name: fmt.Sprintf("Kafka takes %s of %s", q[0].event.id, s.name()), act: func() { s.take(p) }})
		}
	}
	return list
}

// matters reports whether it makes a difference that what a session that is gone
// has left in the network arrives now: before somebody looks at what is in the
// partition, or after, if somebody will look again.
func (s *session) matters(p int) bool {
	w := s.inst.world
	if w.scenario.bounds.exact {
		return true
	}
	if s.epoch < s.kafka.readBy[p] && (w.left != budget{} || len(w.instances) > 1) {
		return true
	}
	return slices.ContainsFunc(w.instances, func(inst *instance) bool {
		looks := inst.session != nil && inst.session.tails[p] == nil
		return looks && slices.ContainsFunc(inst.parked, func(at *parking) bool { return at.point == crash.BeforeSend })
	})
}

func (inst *instance) faults() (list []choice) {
	w := inst.world
	if w.left.Kills > 0 {
		list = append(list, choice{name: fmt.Sprintf("%s is killed (%s)", inst.name, points(inst.trail)), fault: true, kills: inst, act: func() {
			w.left.Kills--
			w.kill(inst)
			if len(w.instances) == 0 {
				w.start()
			}
		}})
	}
	for _, p := range inst.parked {
		if p.point != crash.BeforeCommit || w.left.CommitFaults == 0 || inst.session == nil {
			continue
		}
		fail := func(f commitFault) func() {
			return func() {
				w.left.CommitFaults--
				inst.session.fault = f
				inst.goOn(p)
			}
		}
		list = append(list,
			choice{name: inst.name + "'s commit fails", fault: true, act: fail(commitRefused)},
			choice{name: inst.name + "'s commit takes place, and its answer is lost", fault: true, act: fail(commitUnknown)})
	}
	if s := inst.session; w.left.Impatience > 0 && s != nil && s.unsettled > 0 && (s.over || inst.source.noticed) {
		list = append(list, choice{name: inst.name + " loses patience", fault: true, act: func() { w.left.Impatience-- }, pause: 2 * patience})
	}
	return list
}

func points(trail []crash.Point) string {
	slices.SortFunc(trail, cmp.Compare)
	names := make([]string, len(trail))
	for i, p := range trail {
		names[i] = string(p)
	}
	return strings.Join(names, ", ")
}

func (w *world) faults() (list []choice) {
	if w.left.Refusals > 0 {
		for _, s := range w.kafka.senders() {
			for p, q := range s.queues {
				if len(q) > 0 && !s.gone() {
					list = append(list, choice{name: fmt.Sprintf("Kafka refuses %s of %s", q[0].event.id, s.name()), fault: true, act: func() {
						w.left.Refusals--
						s.refuse(p)
					}})
				}
			}
		}
	}
	if w.left.Spares > 0 {
		list = append(list, choice{name: "a spare starts", fault: true, act: func() { w.left.Spares--; w.start() }})
	}
	if w.left.Drops > 0 && w.pg.holder != nil {
		list = append(list, choice{name: "Postgres takes " + w.pg.holder.inst.name + " for dead", fault: true, act: func() { w.left.Drops--; w.pg.release() }})
	}
	if w.left.Zombies > 0 && w.pg.holder != nil {
		list = append(list, choice{name: "Postgres takes " + w.pg.holder.inst.name + " for dead, and another starts", fault: true, act: func() {
			w.left.Zombies--
			w.pg.release()
			w.start()
		}})
	}
	if w.left.ServerCrashes > 0 {
		for _, at := range w.pg.durable {
			list = append(list, choice{name: fmt.Sprintf("Postgres crashes, its slot is back at %d", at), fault: true, act: func() { w.left.ServerCrashes--; w.pg.crash(at) }})
		}
	}
	return list
}
