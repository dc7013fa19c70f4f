package chaos

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/walpost/walpost/test/crash"
	"github.com/walpost/walpost/test/harness"
)

// scene is servers, and what is done while they run.
type scene struct {
	name   string
	world  func(*testing.T) *world
	faults []fault
}

func scenes() []scene {
	return []scene{
		{"plain", plainWorld, []fault{
			{name: "SIGKILL of the relay", long: 100, short: 12, plan: kills, strike: killRelay},
			{name: "SIGKILL of the broker", long: 20, short: 2, plan: outages, strike: killBroker},
			{name: "SIGKILL of Postgres", long: 10, short: 2, plan: outages, strike: killPostgres},
			{name: "zombie, woken after seconds", zombie: true, long: 10, short: 1, plan: sleepers, strike: wakeZombie},
			{name: "zombie, woken at once", zombie: true, long: 10, short: 1, plan: zombies, strike: wakeZombie},
			{name: "SIGKILL at each crash point", long: 4, short: 1, plan: points, strike: crashAt},
		}},
		{"standby", replicatedWorld, []fault{
			{name: "promotion of a synchronous standby", long: 10, short: 1, plan: outages, strike: promote},
		}},
		{"cluster", clusterWorld, []fault{
			{name: "SIGKILL of a leader of three brokers", long: 10, short: 1, plan: elections, strike: killLeader},
		}},
	}
}

// fault is one kind, and what it takes to plan and to commit it.
type fault struct {
	name        string
	zombie      bool // a relay is stopped, succeeded, and woken
	long, short int  // how often
	plan        func(chance *rand.Rand, times int) []strike
	strike      func(*run, strike)
}

func (f fault) times(short bool) int {
	if short {
		return f.short
	}
	return f.long
}

// strike is one fault as it was drawn. Which fields it has depends on its kind.
type strike struct {
	after time.Duration // under load, before it strikes
	lasts time.Duration // until what was struck comes back

	when    phase       // a relay's
	backlog int         // big transactions that wait for it
	seed    uint64      // of these
	leads   int         // a broker that leads this partition; -1: that coordinates
	timeout bool        // nobody ends the zombie's connection: Postgres must
	point   crash.Point // where it dies
	arrival int         // at which arrival there it dies
}

func (s strike) String() string {
	text := fmt.Sprintf("%s %v", s.when, s.after)
	switch {
	case s.point != "":
		return fmt.Sprintf("%s, arrival %d", s.point, s.arrival)
	case s.timeout:
		text += ", noticed by timeout"
	}
	if s.leads < 0 {
		text += ", the coordinator"
	}
	if s.backlog > 0 {
		text += fmt.Sprintf(", %d big transactions behind", s.backlog)
	}
	if s.lasts > 0 {
		text += fmt.Sprintf(", away for %v", s.lasts)
	}
	return text
}

// phase is what a relay is at when it is struck.
type phase string

const (
	streaming phase = "streaming for"
	opening   phase = "started for"
)

// within draws a time of a whole number of milliseconds below limit.
func within(chance *rand.Rand, limit time.Duration) time.Duration {
	return time.Duration(chance.Int64N(limit.Milliseconds())) * time.Millisecond
}

// kills: half of them strike a relay that is caught up or nearly, a quarter one
// that drains a backlog, a quarter one that opens.
func kills(chance *rand.Rand, times int) []strike {
	plan := make([]strike, times)
	for n := range plan {
		s := strike{when: streaming, seed: chance.Uint64()}
		switch n % 4 {
		case 1:
			s.backlog, s.after = 3+chance.IntN(8), within(chance, 300*time.Millisecond)
		case 3:
			s.when, s.after = opening, within(chance, 500*time.Millisecond)
		default:
			s.after = within(chance, time.Second)
		}
		plan[n] = s
	}
	return plan
}

func killRelay(r *run, s strike) {
	r.t.Helper()
	if s.backlog > 0 {
		r.load.Burst(s.backlog, s.seed)
	}
	relay := r.start(0)
	if s.when == streaming {
		relay.WaitReady(patience)
	}
	r.lasting(relay, s.after)
	relay.Kill()
	r.buried()
}

// work lets a relay work until it is struck: in the middle of big transactions,
// if there are any.
func (r *run) work(relay *harness.Relay, s strike) {
	r.t.Helper()
	r.lasting(relay, s.after)
	if s.backlog > 0 {
		r.load.Burst(s.backlog, s.seed)
	}
}

func outages(chance *rand.Rand, times int) []strike {
	plan := make([]strike, times)
	for n := range plan {
		plan[n] = strike{
			when: streaming, after: 300*time.Millisecond + within(chance, 1200*time.Millisecond), lasts: within(chance, 1500*time.Millisecond),
			backlog: n % 2 * (2 + chance.IntN(4)), seed: chance.Uint64(),
		}
	}
	return plan
}

func killBroker(r *run, s strike) {
	r.t.Helper()
	r.outage(s, r.world.broker)
}

func killPostgres(r *run, s strike) {
	r.t.Helper()
	r.outage(s, r.world.postgres)
}

// outage kills a server under a relay that goes on, and waits until events flow.
func (r *run) outage(s strike, server harness.Faulty) {
	r.t.Helper()
	relay := r.running()
	r.work(relay, s)
	server.Kill()
	r.lasting(relay, s.lasts)
	server.Start()
	r.returned(r.observer.ends(readUncommitted))
	r.observer.await(200)
	relay.WaitReady(patience)
}

// promote kills the primary and makes its standby the new one; in the end there is
// a standby again.
func promote(r *run, s strike) {
	r.t.Helper()
	relay, pair := r.running(), r.world.replicated
	pair.AwaitSynced(r.name)
	r.work(relay, s)
	pair.Primary().Kill()
	r.lasting(relay, s.lasts)
	pair.Promote()
	r.returned(r.observer.ends(readUncommitted))
	r.observer.await(200)
	relay.WaitReady(patience)
	pair.Rejoin()
}

// elections: a third of them strike the coordinator of the relay's transactions.
func elections(chance *rand.Rand, times int) []strike {
	plan := outages(chance, times)
	for n := range plan {
		plan[n].leads = chance.IntN(len(aggregates) * partitions)
		if n%3 == 2 {
			plan[n].leads = -1
		}
	}
	return plan
}

// killLeader kills one broker of a cluster that is whole, waits until events flow
// without it, and starts it again.
func killLeader(r *run, s strike) {
	r.t.Helper()
	relay, cluster := r.running(), r.world.cluster
	cluster.AwaitInSync()
	var leader int
	if s.leads < 0 {
		leader = cluster.Coordinator(r.name)
	} else {
		leader = cluster.Leader(r.topic(aggregates[s.leads/partitions]), int32(s.leads%partitions))
	}
	r.work(relay, s)
	cluster.Node(leader).Kill()
	killed := time.Now()
	r.returns = append(r.returns, moment{killed, r.observer.ends(readUncommitted)})
	r.observer.await(200)
	r.lasting(relay, s.lasts)
	cluster.Node(leader).Start()
	relay.WaitReady(patience)
}

// sleepers sleep for longer than a relay may without noticing that it did (sink/kafka,
// Config.PauseLimit).
func sleepers(chance *rand.Rand, times int) []strike {
	plan := zombies(chance, times)
	for n := range plan {
		plan[n].lasts += 3500 * time.Millisecond
		plan[n].timeout = n%2 == 1
	}
	return plan
}

// zombies are woken as soon as their successor is at work.
func zombies(chance *rand.Rand, times int) []strike {
	plan := make([]strike, times)
	for n := range plan {
		plan[n] = strike{
			when: streaming, after: 300*time.Millisecond + within(chance, time.Second), lasts: within(chance, 500*time.Millisecond),
			backlog: n % 2 * (2 + chance.IntN(4)), seed: chance.Uint64(),
		}
	}
	return plan
}

// wakeZombie stops the relay that holds the slot where it is, lets the other one
// take over and publish, and wakes the first.
func wakeZombie(r *run, s strike) {
	r.t.Helper()
	for role := range roles {
		if r.relays[role] == nil {
			r.start(role)
		}
	}
	holder := r.holder(-1)
	asleep, other := r.relays[holder], r.relays[1-holder]
	r.observer.await(200)
	r.work(asleep, s)
	asleep.Pause()
	ends := r.observer.ends(readUncommitted)
	r.deaths = append(r.deaths, death{ends})
	if !s.timeout {
		r.pg.Exec(r.t, "select pg_terminate_backend(active_pid) from pg_replication_slots where slot_name = $1 and active", r.name)
	}
	r.returned(ends)
	r.holder(holder)
	r.observer.await(500)
	r.lasting(other, s.lasts)
	asleep.Resume()
	r.observer.await(500) // beside it
	r.lasting(asleep, 500*time.Millisecond)
}

// holder waits until the slot is held by a relay in another role than not.
func (r *run) holder(not int) int {
	r.t.Helper()
	role := -1
	harness.Eventually(r.t, patience, "a relay that holds the slot", func() error {
		name := harness.Value[string](r.t, r.pg, `select coalesce(max(usename), '') from pg_stat_replication
			join pg_replication_slots on active_pid = pid where slot_name = $1`, r.name)
		if role = slices.Index(roles[:], name); role < 0 || role == not {
			return fmt.Errorf("held by %q", name)
		}
		return nil
	})
	return role
}

// points visits each of them so many times.
func points(chance *rand.Rand, times int) []strike {
	var plan []strike
	for range times {
		for _, point := range crash.Points() {
			plan = append(plan, strike{point: point, arrival: 1 + chance.IntN(arrivals(point)), after: within(chance, 500*time.Millisecond)})
		}
	}
	return plan
}

// arrivals is how often a point is reached soon, in a life under load.
func arrivals(point crash.Point) int {
	switch point {
	case crash.AfterNext, crash.BeforeSend, crash.AfterSend, crash.BeforeSettle, crash.AfterSettle:
		return 30
	case crash.BeforeCommit, crash.AfterCommit, crash.AfterConfirm:
		return 3
	default:
		return 1
	}
}

// windsUp tells whether a point is reached only by a relay that is asked to stop.
func windsUp(point crash.Point) bool {
	return point == crash.BeforeClose || point == crash.AfterClose || point == crash.AfterGiveBack
}

// crashAt starts a relay that kills itself at a point.
func crashAt(r *run, s strike) {
	r.t.Helper()
	r.succeeding()
	relay := harness.StartVariant(r.t, "github.com/walpost/walpost/test/chaos/cmd/walpost-crash", r.yaml(roles[0]),
		"WALPOST_CRASH_POINT="+string(s.point), "WALPOST_CRASH_ARRIVAL="+strconv.Itoa(s.arrival))
	if windsUp(s.point) {
		relay.WaitReady(patience)
		r.lasting(relay, s.after)
		relay.SIGTERM()
	}
	if code := relay.Wait(patience); code != -1 {
		r.t.Fatalf("the relay did not reach %s for time %d: exit code %d\n%s", s.point, s.arrival, code, relay.Log())
	}
	r.buried()
}
