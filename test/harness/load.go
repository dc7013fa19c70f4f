package harness

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	mrand "math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// LoadConfig says what a load writes. Its zero fields have defaults.
type LoadConfig struct {
	Table   string   // outbox with the default columns; "outbox"
	Types   []string // aggregate types; {"order"}. A key belongs to one of them
	Writers int      // connections; 4
	Keys    int      // distinct keys; 20
	MaxRows int      // rows of a transaction; 5
	BigRows int      // rows of a big transaction
	BigOne  int      // in so many is big; 0: none
	Batch   bool     // a transaction's statements go in one round trip: more load for less work
	Rate    float64  // transactions a second, over all writers; 0: as fast as they go
	Seed    uint64   // of what is written, not of its timing; 1
}

func (c LoadConfig) withDefaults() LoadConfig {
	if c.Table == "" {
		c.Table = "outbox"
	}
	if len(c.Types) == 0 {
		c.Types = []string{"order"}
	}
	for _, field := range []struct {
		value    *int
		fallback int
	}{{&c.Writers, 4}, {&c.Keys, 20}, {&c.MaxRows, 5}} {
		if *field.value == 0 {
			*field.value = field.fallback
		}
	}
	if c.Seed == 0 {
		c.Seed = 1
	}
	return c
}

// outcomes is a table beside the outbox. A transaction leaves its mark in it, so
// that its fate can be asked for when the answer to COMMIT was lost.
const outcomes = `create table if not exists harness_outcomes(tx uuid primary key, committed boolean not null)`

// txTimeout ends a transaction that hangs, as behind a paused server.
const txTimeout = 10 * time.Second

// settleTimeout is how long Stop waits for outcomes that are in doubt.
const settleTimeout = time.Minute

// Load commits transactions into an outbox from several connections, and rolls
// some back, until stopped. It survives the loss of connections and servers.
// Its Ledger says what became of every event.
//
// A key's transactions are made one after the other, whichever connection they
// take, so that their commit order is known.
type Load struct {
	*Ledger
	t      testing.TB
	url    string
	config LoadConfig
	keys   []sync.Mutex
	stop   chan struct{}
	done   sync.WaitGroup
	once   sync.Once

	abandon context.CancelFunc // ends what still hangs long after Stop
	pace    *time.Ticker       // nil: no pause
}

// maxKeys is how many keys a transaction has at most: each of them keeps other
// writers waiting.
const maxKeys = 8

// StartLoad starts writing. The load is stopped at the test's end at the latest.
func StartLoad(t testing.TB, pg *PG, config LoadConfig) *Load {
	t.Helper()
	pg.Exec(t, outcomes)
	config = config.withDefaults()
	l := &Load{Ledger: NewLedger(), t: t, url: pg.URL, config: config, keys: make([]sync.Mutex, config.Keys), stop: make(chan struct{})}
	ctx, abandon := context.WithCancel(context.Background())
	l.abandon = abandon
	if config.Rate > 0 {
		l.pace = time.NewTicker(time.Duration(float64(time.Second) / config.Rate))
	}
	for i := range config.Writers {
		w := &writer{load: l, random: mrand.New(mrand.NewPCG(config.Seed, uint64(i)))} //nolint:gosec // repeatable on purpose
		l.done.Go(func() { w.run(ctx) })
	}
	t.Cleanup(l.Stop)
	return l
}

// Stop ends the writing and waits until the outcome of every transaction is
// known, which needs the server. It may be called again.
func (l *Load) Stop() {
	l.t.Helper()
	l.once.Do(func() {
		close(l.stop)
		limit := time.AfterFunc(settleTimeout, l.abandon)
		l.done.Wait()
		if !limit.Stop() {
			l.t.Errorf("load: the outcome of some transactions is still unknown %s after the end", settleTimeout)
		}
		l.abandon()
		if l.pace != nil {
			l.pace.Stop()
		}
	})
}

// AwaitCommitted waits until at least n events have been committed.
func (l *Load) AwaitCommitted(n int, timeout time.Duration) {
	l.t.Helper()
	Eventually(l.t, timeout, fmt.Sprintf("%d committed events", n), func() error {
		if got := l.Committed(); got < n {
			return fmt.Errorf("%d so far", got)
		}
		return nil
	})
}

// Burst commits big transactions, one after the other, beside what the load
// does anyway: a backlog, if no relay runs. Some are rolled back. seed is of what
// is written.
func (l *Load) Burst(transactions int, seed uint64) {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), settleTimeout)
	defer cancel()
	w := &writer{load: l, random: mrand.New(mrand.NewPCG(seed, 0))} //nolint:gosec // repeatable on purpose
	defer w.disconnect()
	for range transactions {
		w.carryOut(ctx, w.planRows(l.config.BigRows))
	}
	if ctx.Err() != nil {
		l.t.Errorf("load: the outcome of a burst is unknown after %s", settleTimeout)
	}
}

// writer is one connection's worth of load, on one goroutine.
type writer struct {
	load   *Load
	random *mrand.Rand
	conn   *pgx.Conn // nil: to be opened
	n      int       // events made
}

func (w *writer) run(ctx context.Context) {
	defer w.disconnect() //nolint:contextcheck // says goodbye even then
	for w.wait() {
		w.carryOut(ctx, w.plan())
	}
}

func (w *writer) carryOut(ctx context.Context, tx transaction) {
	w.lock(tx.keys)
	w.perform(ctx, tx)
	w.unlock(tx.keys)
}

// wait is false once the load is stopped.
func (w *writer) wait() bool {
	if w.load.pace == nil {
		select {
		case <-w.load.stop:
			return false
		default:
			return true
		}
	}
	select {
	case <-w.load.stop:
		return false
	case <-w.load.pace.C:
		return true
	}
}

// transaction is what a writer is about to do.
type transaction struct {
	id       string
	keys     []int // ascending, so that writers can't deadlock
	rows     []row
	rollback bool // all of it
}

type row struct {
	Event
	kind      string // aggregate type
	savepoint bool   // written below a savepoint that is rolled back
	deleted   bool   // deleted again in the same transaction
}

// plan makes a random transaction.
func (w *writer) plan() transaction {
	if one := w.load.config.BigOne; one > 0 && w.random.IntN(one) == 0 {
		return w.planRows(w.load.config.BigRows)
	}
	return w.planRows(1 + w.random.IntN(w.load.config.MaxRows))
}

// planRows makes a random transaction of so many rows: mostly commits, one in
// ten rolled back, one row in eight below a savepoint that is rolled back, one in
// eight deleted again.
func (w *writer) planRows(n int) transaction {
	tx := transaction{id: newUUID(), rollback: w.random.IntN(10) == 0}
	for range n {
		key := w.random.IntN(w.load.config.Keys)
		switch {
		case slices.Contains(tx.keys, key):
		case len(tx.keys) < maxKeys:
			tx.keys = append(tx.keys, key)
		default:
			key = tx.keys[w.random.IntN(len(tx.keys))]
		}
		tx.rows = append(tx.rows, w.row(key))
	}
	slices.Sort(tx.keys)
	return tx
}

// row makes an event. The value is JSON in the form that jsonb gives it back.
func (w *writer) row(key int) row {
	id := newUUID()
	w.n++
	fate := w.random.IntN(8)
	return row{
		Event:     Event{ID: id, Key: fmt.Sprintf("key-%d", key), Value: fmt.Sprintf(`{"n": %d, "id": "%s"}`, w.n, id)},
		kind:      w.load.config.Types[key%len(w.load.config.Types)],
		savepoint: fate == 0,
		deleted:   fate == 1,
	}
}

func (w *writer) lock(keys []int) {
	for _, key := range keys {
		w.load.keys[key].Lock()
	}
}

func (w *writer) unlock(keys []int) {
	for _, key := range keys {
		w.load.keys[key].Unlock()
	}
}

// perform carries a transaction out and records its outcome, whatever happens
// to the connection.
func (w *writer) perform(ctx context.Context, tx transaction) {
	err := w.attempt(ctx, tx)
	committed := err == nil && !tx.rollback
	if err != nil {
		w.disconnect() //nolint:contextcheck // says goodbye even then
		var known bool
		if committed, known = w.resolve(ctx, tx); !known {
			return // Stop reports it
		}
	}
	w.record(tx, committed)
}

func (w *writer) record(tx transaction, committed bool) {
	var kept, gone []Event
	for _, r := range tx.rows {
		if committed && !r.savepoint {
			kept = append(kept, r.Event)
		} else {
			gone = append(gone, r.Event)
		}
	}
	w.load.Commit(kept...)
	w.load.Discard(gone...)
}

func (w *writer) attempt(ctx context.Context, tx transaction) error {
	ctx, cancel := context.WithTimeout(ctx, txTimeout)
	defer cancel()
	if err := w.connect(ctx); err != nil {
		return err
	}
	begun, err := w.conn.Begin(ctx)
	if err != nil {
		return err
	}
	if err := w.write(ctx, begun, tx); err != nil {
		return err
	}
	if tx.rollback {
		return begun.Rollback(ctx)
	}
	return begun.Commit(ctx)
}

// write sends a transaction's statements, between its begin and its end.
func (w *writer) write(ctx context.Context, begun pgx.Tx, tx transaction) error {
	all := statements(w.load.config.Table, tx)
	if w.load.config.Batch {
		return begun.SendBatch(ctx, &pgx.Batch{QueuedQueries: all}).Close()
	}
	for _, s := range all {
		if _, err := begun.Exec(ctx, s.SQL, s.Arguments...); err != nil {
			return err
		}
	}
	return nil
}

func statements(table string, tx transaction) []*pgx.QueuedQuery {
	var b pgx.Batch
	b.Queue("insert into harness_outcomes values ($1, true)", tx.id)
	for _, r := range tx.rows {
		if r.savepoint {
			b.Queue("savepoint below")
		}
		b.Queue("insert into "+table+" (id, aggregatetype, aggregateid, type, payload) values ($1, $2, $3, 'LoadEvent', $4)",
			r.ID, r.kind, r.Key, r.Value)
		if r.deleted {
			b.Queue("delete from "+table+" where id = $1", r.ID)
		}
		if r.savepoint {
			b.Queue("rollback to savepoint below")
		}
	}
	return b.QueuedQueries
}

// resolve asks for the outcome of a transaction until there is an answer.
func (w *writer) resolve(ctx context.Context, tx transaction) (committed, known bool) {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		committed, err := w.ask(ctx, tx.id)
		if err == nil {
			return committed, true
		}
		w.disconnect() //nolint:contextcheck // says goodbye even then
		select {
		case <-ctx.Done():
			return false, false
		case <-tick.C:
		}
	}
}

// ask looks for the transaction's mark. Inserting another waits for a session
// that may still be about to commit, and shuts the door behind it.
func (w *writer) ask(ctx context.Context, id string) (committed bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, txTimeout)
	defer cancel()
	if err := w.connect(ctx); err != nil {
		return false, err
	}
	if _, err := w.conn.Exec(ctx, "insert into harness_outcomes values ($1, false) on conflict do nothing", id); err != nil {
		return false, err
	}
	err = w.conn.QueryRow(ctx, "select committed from harness_outcomes where tx = $1", id).Scan(&committed)
	return committed, err
}

func (w *writer) connect(ctx context.Context) error {
	if w.conn != nil {
		return nil
	}
	conn, err := pgx.Connect(ctx, w.load.url)
	if err != nil {
		return errors.Join(errors.New("load: connect"), err)
	}
	w.conn = conn
	return nil
}

func (w *writer) disconnect() {
	if w.conn == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = w.conn.Close(ctx) // may be broken already
	w.conn = nil
}

// newUUID makes a random UUID (RFC 9562, version 4) in its text form.
func newUUID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
