package model

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/walpost/walpost/checkpoint"
	"github.com/walpost/walpost/outbox"
	"github.com/walpost/walpost/outbox/mapping"
	"github.com/walpost/walpost/relay"
	"github.com/walpost/walpost/replication"
	"github.com/walpost/walpost/test/crash"
)

const (
	pipeline   = "trainings"
	genesisLSN = 100 // of the slot and the first checkpoint
	interval   = 4 * time.Millisecond
	aWhile     = 2 * interval // every interval of a relay passes within it, and none of its timeouts
	patience   = time.Second
	never      = 10_000 * time.Hour
)

// event is one that was committed.
type event struct {
	number    int // in commit order, over all transactions
	id        string
	key       string
	partition int
	pos       outbox.Position
	end       uint64 // of its transaction: where it may be confirmed
}

// item is what the slot yields at once: a transaction, or a keepalive that says
// how far there is nothing more.
type item struct {
	commit, end uint64
	events      []*event
}

// world is everything around the instances of a relay. Its mutex guards all of
// it; the explorer touches it only while every goroutine is blocked.
type world struct {
	scenario scenario
	items    []item
	events   map[string]*event
	order    []*event
	left     budget // faults that may still happen

	mu        sync.Mutex
	steps     int // taken by the explorer
	pg        *postgres
	kafka     *kafka
	instances []*instance // that live
	started   int
	broken    []string
	running   sync.WaitGroup
}

func newWorld(s scenario) *world {
	w := &world{scenario: s, left: s.bounds.budget, events: map[string]*event{}}
	w.commit(s.history)
	w.pg = &postgres{world: w, confirmed: genesisLSN, durable: []uint64{genesisLSN}}
	w.kafka = newKafka(w)
	w.start()
	return w
}

// commit makes the history out of the transactions' event ids; nil is a
// keepalive. An event's key is its id's first letter, and keys share two
// partitions.
func (w *world) commit(history [][]string) {
	lsn, number := uint64(genesisLSN), 0
	for _, ids := range history {
		lsn += 10
		it := item{end: lsn}
		if ids != nil {
			it = item{commit: lsn, end: lsn + 5}
		}
		for i, id := range ids {
			e := &event{
				number: number, id: id, key: id[:1], partition: int(id[0]-'a') % partitions, end: it.end,
				pos: outbox.Position{Generation: 1, Commit: lsn, Index: uint32(i)},
			}
			number++
			w.events[id] = e
			w.order = append(w.order, e)
			it.events = append(it.events, e)
		}
		w.items = append(w.items, it)
	}
}

func (w *world) end() uint64 { return w.items[len(w.items)-1].end }

// breach notes that an invariant does not hold. The caller holds the mutex.
func (w *world) breach(format string, args ...any) {
	w.broken = append(w.broken, fmt.Sprintf(format, args...))
}

// instance is one process that runs a relay.
type instance struct {
	world  *world
	name   string
	age    int
	cancel context.CancelFunc

	// Under the world's mutex.
	dead      bool
	parked    []*parking
	trail     []crash.Point // reached during the latest step in which any was
	trailStep int
	source    *source  // of its current life
	session   *session // of its current life
	lives     int
	known     known // by its current life
}

// parking is a goroutine that has reached a point and waits there.
type parking struct {
	point crash.Point
	gate  chan struct{} // closed when it may go on
}

// known is what a relay's life was told. What it knows follows from that.
type known struct {
	before    uint64 // the checkpoint at the first look
	slot      uint64 // as it stood before it was taken
	opening   []byte // while it opens: the answers, later what matters of them
	reads     []byte // the batches
	settled   []uint64
	commit    []byte // its latest
	confirmed uint64
	failed    int    // commits: after the first, a life ends
	all       []byte // in order, for exact bounds
}

func (k *known) settle(seqs []uint64) {
	k.note("settled %v", seqs)
	k.settled = append(k.settled, seqs...)
	slices.Sort(k.settled)
}

func (k *known) told(format string, args ...any) {
	k.note(format, args...)
	k.opening = fmt.Appendf(k.opening, format+";", args...)
}

func (k *known) note(format string, args ...any) {
	k.all = fmt.Appendf(k.all, format+";", args...)
}

// start lets another instance run. Its Supervisor and all below are the real
// ones.
func (w *world) start() {
	ctx, cancel := context.WithCancel(context.Background())
	inst := &instance{world: w, name: string(rune('A' + w.started)), age: w.started, cancel: cancel, trailStep: -1}
	w.started++
	w.instances = append(w.instances, inst)
	supervisor, err := relay.NewSupervisor(inst.config())
	if err != nil {
		w.breach("%v", err)
		return
	}
	w.running.Go(func() {
		err := supervisor.Run(ctx)
		w.mu.Lock()
		defer w.mu.Unlock()
		if !inst.dead {
			w.breach("%s %v", inst.name, err)
		}
	})
}

func (inst *instance) config() relay.Config {
	w := inst.world
	source, sink := w.scenario.breaks.disguise(&connector{inst}, &end{inst})
	return relay.Config{
		Pipeline: pipeline, Slot: pipeline, Tables: []mapping.Table{table()},
		Source: crash.Connector(source, inst.reach), Sink: crash.Sink(sink, inst.reach),
		Destination: func(context.Context) (string, error) { return "kafka-1", nil },
		Logger:      slog.New(slog.DiscardHandler), Observer: blind{},
		OpenTimeout: never, ShutdownTimeout: patience, StallAfter: never, MonitorInterval: never,
		CheckpointInterval: interval, IdleInterval: -1, TransactionTime: never, RetryInitial: interval / 4, RetryMax: interval / 2,
	}
}

// reach is told of each named point. At some a goroutine waits until the
// explorer lets it go on.
func (inst *instance) reach(p crash.Point) {
	inst.world.mu.Lock()
	if inst.dead {
		inst.world.mu.Unlock()
		return
	}
	if inst.trailStep != inst.world.steps {
		inst.trail, inst.trailStep = nil, inst.world.steps
	}
	inst.trail = append(inst.trail, p)
	if p == crash.BeforeMarks {
		inst.lives++
		inst.known = known{}
		inst.source, inst.session = nil, nil
	}
	if !inst.world.stopsAt(p) {
		inst.world.mu.Unlock()
		return
	}
	here := &parking{p, make(chan struct{})}
	inst.parked = append(inst.parked, here)
	inst.world.mu.Unlock()
	<-here.gate
}

// stopsAt tells where goroutines wait for their turn. While an instance is alone
// and nothing can happen to the server, nobody else can do what would change
// anything about its opening and its closing.
func (w *world) stopsAt(p crash.Point) bool {
	if !slices.Contains(w.scenario.bounds.stops, p) {
		return false
	}
	switch p {
	case crash.AfterMarks, crash.BeforeStart, crash.AfterClose:
		return w.scenario.bounds.exact || len(w.instances) > 1 && !w.scenario.bounds.brief || w.left.ServerCrashes > 0 || w.left.Spares > 0
	default:
		return true
	}
}

// goOn lets a goroutine leave the point it waits at.
func (inst *instance) goOn(here *parking) {
	inst.parked = slices.DeleteFunc(inst.parked, func(p *parking) bool { return p == here })
	close(here.gate)
}

var errDead = errors.New("this process was killed")

// kill ends an instance where it stands: none of its calls has an effect any
// more. What it had handed to the network stays there.
func (w *world) kill(inst *instance) {
	inst.dead = true
	w.instances = slices.DeleteFunc(w.instances, func(i *instance) bool { return i == inst })
	if w.pg.holder != nil && w.pg.holder.inst == inst {
		w.pg.holder = nil
	}
	for _, p := range inst.parked {
		close(p.gate)
	}
	inst.parked = nil
	if inst.session != nil {
		inst.session.end(errDead)
	}
	inst.cancel()
}

// close ends every instance and waits for their goroutines.
func (w *world) close() {
	w.mu.Lock()
	for len(w.instances) > 0 {
		w.kill(w.instances[0])
	}
	w.mu.Unlock()
	w.running.Wait()
}

// lost is an error as the layers make them: it may pass.
type lost struct{ name string }

func (e *lost) Error() string     { return "model: " + e.name }
func (e *lost) Condition() string { return e.name }
func (e *lost) Retryable() bool   { return true }

type blind struct{}

func (blind) Read(int)                                 {}
func (blind) Settled(string, int, time.Duration, bool) {}
func (blind) Restarted(string)                         {}
func (blind) Skipped(int)                              {}

func table() mapping.Table {
	return mapping.Table{
		Schema: "public", Name: "outbox", Topic: "event.{aggregate_type}",
		Columns: mapping.Columns{ID: "id", AggregateType: "aggregatetype", AggregateID: "aggregateid", Type: "type", Payload: "payload"},
	}
}

func publication() *replication.Publication {
	return &replication.Publication{Name: pipeline, Insert: true, Tables: []replication.PublishedTable{{Schema: "public", Table: "outbox", OID: 4711}}}
}

func genesis() []byte {
	r := checkpoint.Record{
		Pipeline: pipeline, SystemID: "7301", Database: "db", Timeline: 1, Slot: pipeline,
		Publication: publication().Fingerprint(), Configuration: relay.Fingerprint([]mapping.Table{table()}),
		KafkaClusterID: "kafka-1", Generation: 1, Phase: checkpoint.Active, Confirmed: genesisLSN,
		WrittenAt: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
	}
	mark, err := r.Encode()
	if err != nil {
		panic(err)
	}
	return mark
}

func commitTime(lsn uint64) time.Time { return time.Unix(1_700_000_000+int64(lsn), 0).UTC() }
