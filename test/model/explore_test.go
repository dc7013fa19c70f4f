package model

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/walpost/walpost/test/crash"
)

// scenario is a history, the faults that may meet it, and what is broken.
type scenario struct {
	name     string
	history  [][]string // event ids by transaction; nil: a keepalive
	delivery delivery
	bounds   bounds
	breaks   breaks
}

// delivery is of which kinds the sinks are.
type delivery int

const (
	idempotent    delivery = iota
	exactlyOnce            // all of them
	toExactlyOnce          // all but the first instance's
	toIdempotent           // the first instance's alone
)

// atomic tells of which kind an instance's sink is.
func (w *world) atomic(inst *instance) bool {
	switch w.scenario.delivery {
	case exactlyOnce:
		return true
	case toExactlyOnce:
		return inst.age > 0
	case toIdempotent:
		return inst.age == 0
	default:
		return false
	}
}

// bounds limit what is explored.
type bounds struct {
	budget
	bulk  bool          // everything may also be read at once
	stops []crash.Point // where goroutines wait for their turn
	brief bool          // nothing happens while an instance asks where things stand
	exact bool          // without the reductions that a proof on paper allows
}

// result is what an exploration found.
type result struct {
	states, steps, replays int
	done                   int // states in which everything is delivered
	violation              []string
	schedule               []string
	killedAt               map[crash.Point]int
}

// explorer walks depth first through every state that a scenario can reach.
// States can't be copied, so going back is done by beginning anew.
type explorer struct {
	t        *testing.T
	scenario scenario
	world    *world
	path     []*frame
	known    map[string]int // states by key
	edges    [][2]int       // without faults
	done     []bool         // by state
	offers   []int          // choices, by state
	from     []origin       // by state
	result   result
}

// origin is how a state was reached first.
type origin struct {
	state  int
	choice string
}

// frame is a state on the way to the current one.
type frame struct {
	state int
	key   string
	names []string
	next  int // choice; the one before it was taken
}

func explore(t *testing.T, s scenario) (r result) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		e := &explorer{t: t, scenario: s, known: map[string]int{}, result: result{killedAt: map[crash.Point]int{}}}
		e.run()
		r = e.result
	})
	return r
}

func (e *explorer) run() {
	defer func() { e.world.close() }()
	e.restart()
	e.arrive()
	if steps := schedule(); steps != nil {
		e.follow(steps)
		return
	}
	for e.result.violation == nil {
		if !e.advance() && !e.back() {
			e.checkReachable()
			return
		}
	}
}

// follow takes one schedule and tells what it leads to.
func (e *explorer) follow(steps []string) {
	for _, step := range steps {
		choices := e.world.choices()
		i := slices.IndexFunc(choices, func(c choice) bool { return c.name == step })
		if i < 0 {
			e.t.Logf("%q is not possible here", step)
			return
		}
		e.take(choices[i])
		e.t.Logf("%s\n\t%s", step, e.world.key(nil))
	}
	e.arrive()
}

func (e *explorer) restart() {
	if e.world != nil {
		e.world.close()
	}
	e.world = newWorld(e.scenario)
	synctest.Wait()
}

// arrive makes the current state, which is a new one, the end of the path.
func (e *explorer) arrive() {
	w := e.world
	f := &frame{state: len(e.done), key: w.key(nil)}
	for _, c := range w.choices() {
		f.names = append(f.names, c.name)
	}
	e.known[f.key] = f.state
	from := origin{-1, ""}
	if n := len(e.path); n > 0 {
		before := e.path[n-1]
		from = origin{before.state, before.names[before.next-1]}
	}
	e.from = append(e.from, from)
	e.path = append(e.path, f)
	e.offers = append(e.offers, len(f.names))
	done := w.delivered()
	e.done = append(e.done, done)
	e.result.states++
	if done {
		e.result.done++
		w.checkDelivered()
	}
	e.verify()
}

func (e *explorer) verify() {
	if len(e.world.broken) > 0 && e.result.violation == nil {
		e.result.violation = e.world.broken
		for _, f := range e.path {
			if f.next > 0 {
				e.result.schedule = append(e.result.schedule, f.names[f.next-1])
			}
		}
	}
}

// advance takes the choices of the last state until one leads to a new state.
// It returns false if none does, or if the world is not in that state any more.
func (e *explorer) advance() bool {
	f := e.path[len(e.path)-1]
	for f.next < len(f.names) {
		c := e.world.choices()[f.next]
		if c.name != f.names[f.next] {
			e.t.Fatalf("the same schedule led to %q and to %q", f.names[f.next], c.name)
		}
		f.next++
		predicted := ""
		if c.kills != nil {
			for _, p := range c.kills.trail {
				e.result.killedAt[p]++
			}
			predicted = e.world.key(c.kills)
			if _, known := e.known[predicted]; known {
				continue
			}
		}
		e.take(c)
		e.verify()
		if e.result.violation != nil {
			return false
		}
		key := e.world.key(nil)
		if predicted != "" && predicted != key {
			e.t.Fatalf("%s leads to\n%s, not to\n%s", c.name, key, predicted)
		}
		if key == f.key {
			continue
		}
		state, known := e.known[key]
		if !known {
			state = len(e.done)
		}
		if !c.fault {
			e.edges = append(e.edges, [2]int{f.state, state})
		}
		if known {
			if n := len(e.world.choices()); n != e.offers[state] {
				e.t.Fatalf("%s leads to a state that offers %d choices and offered %d when it was reached first: %s", c.name, n, e.offers[state], key)
			}
			return false
		}
		e.arrive()
		return true
	}
	return false
}

// take lets a choice happen and waits until every goroutine is blocked again.
func (e *explorer) take(c choice) {
	w := e.world
	w.mu.Lock()
	w.steps++
	c.act()
	w.mu.Unlock()
	synctest.Wait()
	if c.pause > 0 {
		<-time.After(c.pause)
		synctest.Wait()
	}
	w.mu.Lock()
	w.checkAlways()
	w.mu.Unlock()
	e.result.steps++
}

// back leads to the last state on the path with a choice that was not taken.
func (e *explorer) back() bool {
	for len(e.path) > 0 && e.path[len(e.path)-1].next == len(e.path[len(e.path)-1].names) {
		e.path = e.path[:len(e.path)-1]
	}
	if len(e.path) == 0 {
		return false
	}
	e.restart()
	e.result.replays++
	for _, f := range e.path[:len(e.path)-1] {
		c := e.world.choices()[f.next-1]
		if c.name != f.names[f.next-1] {
			e.t.Fatalf("the same schedule led to %q and to %q", f.names[f.next-1], c.name)
		}
		e.take(c)
	}
	last := e.path[len(e.path)-1]
	if key := e.world.key(nil); key != last.key {
		e.t.Fatalf("the same schedule led to\n%s and to\n%s", last.key, key)
	}
	return true
}

// checkReachable: from every state, everything can be delivered without a
// further fault.
func (e *explorer) checkReachable() {
	into := make([][]int, len(e.done))
	for _, edge := range e.edges {
		into[edge[1]] = append(into[edge[1]], edge[0])
	}
	reached := slices.Clone(e.done)
	var queue []int
	for s, done := range e.done {
		if done {
			queue = append(queue, s)
		}
	}
	for len(queue) > 0 {
		s := queue[0]
		queue = queue[1:]
		for _, from := range into[s] {
			if !reached[from] {
				reached[from] = true
				queue = append(queue, from)
			}
		}
	}
	for key, s := range e.known {
		if !reached[s] {
			e.result.violation = []string{"a state from which not everything is delivered: " + key}
			for ; e.from[s].state >= 0; s = e.from[s].state {
				e.result.schedule = slices.Insert(e.result.schedule, 0, e.from[s].choice)
			}
			return
		}
	}
}

func (r result) String() string {
	return fmt.Sprintf("%d states, %d of them final, %d steps, %d replays", r.states, r.done, r.steps, r.replays)
}

// failure tells what is wrong and how to see it again.
func (r result) failure() string {
	return strings.Join(r.violation, "\n") + "\nafter\n  " + strings.Join(r.schedule, "\n  ") +
		"\nto replay, run this test with -schedule='" + strings.Join(r.schedule, ";") + "'"
}
