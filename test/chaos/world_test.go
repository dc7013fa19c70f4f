package chaos

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/walpost/walpost/test/harness"
	"github.com/walpost/walpost/test/harness/servers"
)

// patience is how long what should take a moment may take.
const patience = 90 * time.Second

const outboxTable = `create table outbox(id uuid primary key, aggregatetype varchar(255) not null,
	aggregateid varchar(255) not null, type varchar(255) not null, payload jsonb)`

// walTimeout is how long a walsender waits for a relay that does not answer.
const walTimeout = 4 * time.Second

// Two roles, by which two relays of one pipeline can be told apart.
var roles = [2]string{"first", "second"}

// world is the servers of some runs. Nobody else uses them.
type world struct {
	pg    *harness.PG // its superuser's database
	kafka *harness.Broker

	broker, postgres harness.Faulty        // where there is one of each
	replicated       *harness.ReplicatedPG // where there are two
	cluster          *harness.KafkaCluster // where there are three
}

// plainWorld has one server of each kind.
func plainWorld(t *testing.T) *world {
	t.Helper()
	pg := harness.DedicatedPostgres(t, harness.Newest, map[string]string{"wal_sender_timeout": fmt.Sprintf("%dms", walTimeout.Milliseconds())})
	kafka := harness.DedicatedKafka(t, harness.Newest)
	for _, role := range roles {
		pg.Exec(t, "create role "+role+" superuser login")
	}
	return &world{pg: pg.PG, kafka: kafka.Broker, broker: kafka.Faulty, postgres: pg.Faulty}
}

// replicatedWorld has a primary and a synchronous standby, which no slot gets ahead
// of.
func replicatedWorld(t *testing.T) *world {
	t.Helper()
	pair := harness.ReplicatedPostgres(t, harness.Replication{Synchronous: true, Guarded: true})
	for _, role := range roles {
		pair.Exec(t, "create role "+role+" superuser login")
	}
	return &world{pg: pair.PG, kafka: harness.DedicatedKafka(t, harness.Newest).Broker, replicated: pair}
}

// clusterWorld has three brokers.
func clusterWorld(t *testing.T) *world {
	t.Helper()
	cluster := harness.DedicatedKafkaCluster(t)
	pg := harness.DedicatedPostgres(t, harness.Newest, nil)
	for _, role := range roles {
		pg.Exec(t, "create role "+role+" superuser login")
	}
	return &world{pg: pg.PG, kafka: cluster.Broker, cluster: cluster}
}

// database is a new one, at the same address. A client that asks a standby for one
// that it has not got yet is refused, and does not ask the primary.
func (w *world) database(t *testing.T, name string) *harness.PG {
	t.Helper()
	w.pg.Exec(t, "create database "+name)
	pg := &harness.PG{Addr: w.pg.Addr, Database: name, URL: strings.Replace(w.pg.URL, "/"+w.pg.Database, "/"+name, 1)}
	harness.Eventually(t, patience, "the new database is there", func() error {
		conn, err := pgx.Connect(t.Context(), pg.URL)
		if err != nil {
			return err
		}
		return conn.Close(t.Context())
	})
	return pg
}

// run is one pipeline under load, and what is done to it.
type run struct {
	t     *testing.T
	world *world
	mode  string

	name   string // of pipeline, slot, publication and database
	pg     *harness.PG
	topics map[string]int

	load     *harness.Load
	observer *observer
	relays   [2]*harness.Relay // by role; nil: none
	deaths   []death
	returns  []moment // of what was struck, or its successor
	torn     []string // one event each of transactions found torn at rest
}

// death is the moment from which on a relay sends nothing, because it was killed
// or stopped: where the partitions ended when that was certain and its successor
// was not yet at work. What a broker appended later of its requests was in flight,
// or sent when it woke.
type death struct{ ends offsets }

// moment is a time, and where the partitions ended then.
type moment struct {
	at   time.Time
	ends offsets
}

var aggregates = []string{"order", "invoice", "shipment"}

const partitions = 4

// newRun makes a pipeline, initialises it, and puts it under load. No relay runs.
func (w *world) newRun(t *testing.T, mode string, seed uint64) *run {
	t.Helper()
	r := &run{t: t, world: w, mode: mode, name: harness.Name("chaos"), topics: map[string]int{}}
	r.pg = w.database(t, r.name)
	r.pg.Exec(t, outboxTable)
	for _, aggregate := range aggregates {
		topic := r.topic(aggregate)
		w.kafka.CreateTopic(t, topic, partitions)
		r.topics[topic] = partitions
	}
	if code, stdout, stderr := harness.RunWalpost(t, r.yaml(roles[0]), "init"); code != 0 {
		t.Fatalf("init: exit code %d\n%s%s", code, stdout, stderr)
	}
	r.observer = observe(t, w.kafka.Addrs, r.topics)
	r.load = harness.StartLoad(t, r.pg, harness.LoadConfig{
		Types: aggregates, Keys: 120, MaxRows: 50, BigRows: 2000, BigOne: 400, Rate: 120, Batch: true, Seed: seed | 1,
	})
	return r
}

func (r *run) topic(aggregate string) string {
	return r.world.kafka.Topic(r.name + "." + aggregate)
}

func (r *run) yaml(role string) string {
	address := strings.Replace(r.pg.URL, "//"+servers.Superuser+"@", "//"+role+"@", 1)
	lines := []string{
		"pipeline: " + r.name,
		"postgres: {url: '" + address + "', slot: " + r.name + ", publication: " + r.name + "}",
		"outbox: {topic: '" + r.topic("{aggregate_type}") + "'}",
		"http: {listen: '${" + harness.EnvHTTP + "}'}",
		"kafka:",
		"  delivery: " + r.mode,
		"  brokers: ['" + strings.Join(r.world.kafka.Addrs, "', '") + "']",
		"  checkpoint: {topic: " + r.topic("checkpoint") + ", transactional_id: " + r.name + "}",
	}
	return strings.Join(lines, "\n") + "\n"
}

// start starts a relay in a role. It may not be ready yet.
func (r *run) start(role int) *harness.Relay {
	r.t.Helper()
	r.succeeding()
	r.relays[role] = harness.StartRelay(r.t, r.yaml(roles[role]))
	return r.relays[role]
}

// succeeding notes that the successor of a dead relay is about to start.
func (r *run) succeeding() {
	if n := len(r.deaths); n > 0 {
		r.returned(r.deaths[n-1].ends)
	}
}

// running makes sure that a relay runs and streams.
func (r *run) running() *harness.Relay {
	r.t.Helper()
	if r.relays[0] == nil {
		r.start(0)
	}
	r.relays[0].WaitReady(patience)
	return r.relays[0]
}

// lasting lets time pass, in which the relay may not end.
func (r *run) lasting(relay *harness.Relay, d time.Duration) {
	r.t.Helper()
	select {
	case <-relay.Done():
		r.t.Fatalf("a relay ended by itself, with exit code %d", relay.Wait(0))
	case <-time.After(d):
	}
}

// buried notes that the relay is dead, and looks at what it has left.
func (r *run) buried() {
	r.t.Helper()
	r.relays[0] = nil
	r.atRest()
	r.deaths = append(r.deaths, death{r.observer.ends(readUncommitted)})
}

// returned notes that events can flow again from now on.
func (r *run) returned(ends offsets) {
	r.returns = append(r.returns, moment{time.Now(), ends})
}

// atRest looks for transactions that are partly in Kafka while no relay runs. A
// Kafka transaction whose end was requested gets there by itself, so where none
// may be torn, those that are found must stay so.
func (r *run) atRest() {
	r.t.Helper()
	r.observer.catchUp()
	torn := r.load.Partial(r.observer.has)
	for deadline := time.Now().Add(5 * time.Second); r.mode == exactlyOnce && len(torn) > 0 && time.Now().Before(deadline); {
		r.observer.catchUp()
		torn = r.load.Partial(r.observer.has)
	}
	for _, id := range torn {
		if !slices.Contains(r.torn, id) {
			r.torn = append(r.torn, id)
		}
	}
}

// finish ends load and faults, lets the relay drain, and judges.
func (r *run) finish(row *result) {
	r.t.Helper()
	r.load.Stop()
	if r.relays[0] == nil && r.relays[1] == nil {
		r.start(0)
	}
	r.drain()
	for role, relay := range r.relays {
		if relay == nil {
			continue
		}
		relay.SIGTERM()
		if code := relay.Wait(patience); code != 0 {
			r.t.Errorf("the relay in role %s: exit code %d after SIGTERM", roles[role], code)
		}
	}
	r.observer.catchUp()
	r.atRest()
	row.judge(r)
	r.pg.Exec(r.t, "select pg_drop_replication_slot(slot_name) from pg_replication_slots where database = $1", r.name)
}

// drain waits until everything committed was read, or nothing comes any more: then
// something is lost, and that is for the judge.
func (r *run) drain() {
	r.t.Helper()
	want := r.load.Committed()
	last, since := -1, time.Now()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		count := r.observer.count()
		if count >= want || count == last && time.Since(since) > 30*time.Second {
			return
		}
		if count != last {
			last, since = count, time.Now()
		}
		<-tick.C
	}
}

// copies are the records of each event that has several.
func copies(all []seen) map[string][]seen {
	byID := map[string][]seen{}
	for _, s := range all {
		byID[s.id] = append(byID[s.id], s)
	}
	maps.DeleteFunc(byID, func(_ string, list []seen) bool { return len(list) < 2 })
	return byID
}
