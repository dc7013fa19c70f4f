package replication

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5/pgproto3"
)

func (s *server) config() Config {
	return Config{
		URL: s.url(), Slot: "walpost_orders", Publication: "walpost_orders", ApplicationName: "walpost/orders",
		// Far away: what a test waits for must not come from a timer.
		SenderTimeout: 10 * time.Minute,
	}
}

// every makes the stream's timer go off in test time. A server is given up
// after three intervals: one that is to live needs time to be scheduled.
func every(interval time.Duration) func(*Config) {
	return func(c *Config) { c.StatusInterval = interval }
}

func dial(t *testing.T, s *server, changes ...func(*Config)) (*Conn, Facts) {
	t.Helper()
	cfg := s.config()
	for _, change := range changes {
		change(&cfg)
	}
	conn, facts, err := Dial(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return conn, facts
}

// open starts streaming. The test's end ends the session from the server's side.
func open(t *testing.T, s *server, changes ...func(*Config)) (*Stream, *peer) {
	t.Helper()
	conn, _ := dial(t, s, changes...)
	stream, err := conn.Start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	p := <-s.streams
	t.Cleanup(func() {
		_ = p.conn.Close()
		stream.Close()
	})
	return stream, p
}

func next(t *testing.T, s *Stream) *Batch {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	b, err := s.Next(ctx)
	if err != nil {
		t.Fatalf("Next: %v", err)
	}
	return b
}

// ended waits for the stream to end and returns why.
func ended(t *testing.T, s *Stream) error {
	t.Helper()
	select {
	case <-s.Done():
		return s.Err()
	case <-time.After(patience):
		t.Fatal("the stream goes on")
		return nil
	}
}

func TestOpenSaysWhoAsksForWhat(t *testing.T) {
	s := newServer(t)
	open(t, s, func(c *Config) {
		c.SenderTimeout = 1234 * time.Millisecond
		c.Publication = `Odd "name", it's`
	})
	if d := cmp.Diff(map[string]string{"replication": "database", "application_name": "walpost/orders", "user": "walpost", "database": "app"}, s.startup); d != "" {
		t.Error(d)
	}
	queries := s.asked()
	want := []string{
		"SET wal_sender_timeout = 1234",
		"IDENTIFY_SYSTEM",
		askServer,
		"TIMELINE_HISTORY 3",
		askSlot,
		askPublication,
		askTables,
		askPartitions,
		`START_REPLICATION SLOT walpost_orders LOGICAL 0/0 (proto_version '1', publication_names '"Odd ""name"", it''s"')`,
	}
	if len(queries) != len(want) {
		t.Fatalf("queries = %q", queries)
	}
	for i := range want {
		if !strings.HasPrefix(queries[i], want[i]) {
			t.Errorf("query %d = %s, want %s", i, queries[i], want[i])
		}
	}
}

func TestFactsAreRead(t *testing.T) {
	s := newServer(t)
	conn, facts := dial(t, s)
	if err := conn.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	want := Facts{
		ServerVersion: 150018, SystemID: "7000000000000000001", Timeline: 3, Database: "app", WALPosition: 0x100002000, WALLevel: "logical",
		History: []Switch{{1, 0x100}, {2, 0x1a0}}, BackendPID: 1,
		Slot: &Slot{Name: "walpost_orders", Plugin: "pgoutput", Database: "app", Active: true, HolderPID: 4711, HolderName: "walpost/orders",
			HolderSince: "2025-01-02 03:04:05+00", RestartLSN: 0x100, ConfirmedFlush: 0x1a0, WALStatus: "reserved",
			Conflicting: true, Failover: true, Synced: true, InvalidationReason: "wal_removed"},
		Publication: &Publication{Name: "walpost_orders", Insert: true, ViaRoot: true, Rows: "16390:740 16391:741",
			Tables: []PublishedTable{{Schema: "public", Table: "outbox", OID: 16384, Columns: "id,payload",
				Partitions: []Partition{{16400, "outbox_1", true, "750"}, {16401, "outbox_2", false, "751"}}}}},
	}
	if d := cmp.Diff(want, facts); d != "" {
		t.Fatal(d)
	}
}

func TestFactsOfABareServer(t *testing.T) {
	s := newServer(t)
	s.answers[askServer] = answer{rows: [][]string{{"true", "140001", "replica"}}}
	s.answers[askSlot] = answer{}
	s.answers[askPublication] = answer{}
	conn, facts := dial(t, s)
	if err := conn.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if facts.Slot != nil || facts.Publication != nil || !facts.InRecovery || facts.WALLevel != "replica" {
		t.Fatalf("facts = %+v", facts)
	}
}

func TestPostgres14HasNeitherRowFiltersNorPublishedSchemas(t *testing.T) {
	s := newServer(t)
	s.answers[askServer] = answer{rows: [][]string{{"false", "140001", "logical"}}}
	conn, _ := dial(t, s)
	if err := conn.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if asked := strings.Join(s.asked(), "\n"); strings.Contains(asked, "rowfilter") || strings.Contains(asked, "pg_publication_namespace") {
		t.Fatalf("asked %s", asked)
	}
}

// What is streamed may arrive in one segment with the answer to
// START_REPLICATION. Nothing of it may be swallowed.
func TestStreamThatBeginsAtOnce(t *testing.T) {
	s := newServer(t)
	s.prelude = slices.Concat(described(), transaction(0x200, 0x210, "a", "b"))
	stream, _ := open(t, s)
	b := next(t, stream)
	want := []seg{{Commit: 0x200, End: 0x210, XID: 7, Rows: []row{{"outbox", 0, []string{"a"}}, {"outbox", 1, []string{"b"}}}}}
	if d := cmp.Diff(want, segments(t, b)); d != "" {
		t.Fatal(d)
	}
	b.Recycle()
}

func TestBatchIsNeverHeldBack(t *testing.T) {
	s := newServer(t)
	stream, p := open(t, s)
	p.put(t, described())
	for i := range uint64(50) {
		p.put(t, transaction(0x200+16*i, 0x208+16*i, "a"))
		b := next(t, stream)
		if b.Rows != 1 || b.WALEnd != 0x208+16*i {
			t.Fatalf("batch %d = %+v", i, b)
		}
		b.Recycle()
	}
	// Not even half a transaction is.
	p.put(t, copyData(xlogData(0x900, begin(0x900, 7))), copyData(xlogData(0x900, insert(1, "a"))))
	b := next(t, stream)
	if b.Rows != 1 || b.Segments[0].End != 0 {
		t.Fatalf("batch = %+v", b)
	}
}

func TestBatchRowsIsTheLimit(t *testing.T) {
	s := newServer(t)
	ids := make([]string, 10)
	s.prelude = slices.Concat(described(), transaction(0x200, 0x210, ids...))
	stream, _ := open(t, s, func(c *Config) { c.BatchRows = 4 })
	var rows []int
	for end := uint64(0); end == 0; {
		b := next(t, stream)
		rows = append(rows, b.Rows)
		end = b.Segments[len(b.Segments)-1].End
	}
	if d := cmp.Diff([]int{4, 4, 2}, rows); d != "" {
		t.Fatal(d)
	}
}

func TestReplyRequestedIsAnsweredAtOnce(t *testing.T) {
	s := newServer(t)
	stream, p := open(t, s)
	p.put(t, copyData(keepalive(0x300, true)))
	if got := p.status(t); got != (status{lsn: 0x1a0}) {
		t.Fatalf("status = %+v, want the slot's position", got)
	}
	b := next(t, stream)
	if d := cmp.Diff([]seg{{End: 0x300}}, segments(t, b)); d != "" || !b.Urgent || b.WALEnd != 0x300 {
		t.Fatalf("batch = %+v %s", b, d)
	}
	p.put(t, copyData(keepalive(0x310, false)))
	if b := next(t, stream); b.Urgent {
		t.Fatalf("batch = %+v", b)
	}
}

// A server that shuts down asks again upon every reply until everything is
// confirmed. That must not become a busy loop, and the confirmation must still
// get through at once.
func TestInsistentServerIsAnsweredWithPauses(t *testing.T) {
	const rounds = 4
	t.Parallel()
	s := newServer(t)
	stream, p := open(t, s)
	ask := copyData(keepalive(0x300, true))
	p.put(t, ask)
	p.status(t)
	begun := time.Now()
	for range rounds {
		p.put(t, ask)
		if got := p.status(t); got.lsn != 0x1a0 {
			t.Fatalf("status = %+v", got)
		}
		if b := next(t, stream); !b.Urgent {
			t.Fatalf("batch = %+v", b)
		}
	}
	if took := time.Since(begun); took < (rounds-1)*answerPause {
		t.Fatalf("%d answers within %s", rounds, took)
	}
	p.put(t, ask)
	stream.Confirm(0x300)
	for p.status(t).lsn != 0x300 {
	}
}

// A stream that doesn't know where its slot stands says nothing at all: three
// zeros, which the server ignores.
func TestUnknownPositionIsZeroThrice(t *testing.T) {
	s := newServer(t)
	s.answers[askSlot] = answer{}
	_, p := open(t, s)
	p.put(t, copyData(keepalive(0x300, true)))
	if got := p.status(t); got != (status{}) {
		t.Fatalf("status = %+v", got)
	}
}

func TestConfirmIsSentAtOnce(t *testing.T) {
	s := newServer(t)
	stream, p := open(t, s)
	// The read is blocked for minutes; each of these wakes it.
	for lsn := uint64(0x500); lsn < 0x540; lsn++ {
		stream.Confirm(lsn)
		if got := p.status(t); got != (status{lsn: lsn}) {
			t.Fatalf("status = %+v, want %#x", got, lsn)
		}
	}
	if stream.Confirmed() != 0x53f {
		t.Fatalf("Confirmed = %#x", stream.Confirmed())
	}
}

func TestConfirmNeverGoesBack(t *testing.T) {
	s := newServer(t)
	stream, p := open(t, s)
	stream.Confirm(0x500)
	p.status(t)
	stream.Confirm(0x400)
	stream.Confirm(0x500)
	stream.Confirm(0)
	p.put(t, copyData(keepalive(0x600, true)))
	if got := p.status(t); got.lsn != 0x500 {
		t.Fatalf("status = %+v", got)
	}
	if stream.Confirmed() != 0x500 {
		t.Fatalf("Confirmed = %#x", stream.Confirmed())
	}
}

// Many confirm at the same time, while rows arrive: the highest gets there,
// none after it is lower, and no row is lost to an interrupted read.
func TestConfirmFromManyGoroutines(t *testing.T) {
	const each, goroutines, rows = 200, 4, 300
	s := newServer(t)
	stream, p := open(t, s)
	var work sync.WaitGroup
	for g := range goroutines {
		work.Go(func() {
			for i := range each {
				stream.Confirm(uint64(0x1000 + i*goroutines + g))
			}
		})
	}
	work.Go(func() {
		input := described()
		for i := range uint64(rows) {
			input = append(input, transaction(0x200+16*i, 0x208+16*i, "a")...)
		}
		for len(input) > 0 { // cut anywhere
			n := min(17, len(input))
			if _, err := p.conn.Write(input[:n]); err != nil {
				t.Errorf("server writes: %v", err)
				return
			}
			input = input[n:]
		}
	})
	work.Go(func() {
		for last := uint64(0); last < 0x1000+each*goroutines-1; {
			kind, body, err := p.take()
			if err != nil {
				t.Errorf("no status update: %v", err)
				return
			}
			lsn := parseStatus(t, kind, body).lsn
			if lsn < last {
				t.Errorf("confirmed %#x after %#x", lsn, last)
			}
			last = lsn
		}
	})
	got := 0
	for got < rows {
		b := next(t, stream)
		got += b.Rows
		b.Recycle()
	}
	work.Wait()
}

// Nobody calls Next: the session lives, and what is read stays bounded.
func TestBlockedReceiver(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.prelude = slices.Concat(described(), copyData(xlogData(0x200, begin(0x200, 7))))
	stream, p := open(t, s, every(100*time.Millisecond), func(c *Config) { c.BatchRows = 2 })
	value := strings.Repeat("x", 64<<10)
	row := copyData(xlogData(0x200, insert(1, value)))
	const limit = 64 << 20 // far above what both sockets hold
	written := 0
	_ = p.conn.SetWriteDeadline(time.Now().Add(500 * time.Millisecond))
	for {
		n, err := p.conn.Write(row)
		if written += n; err != nil {
			break // nobody reads any more
		}
		if written > limit {
			t.Fatalf("%d MiB were read although nobody takes them", written>>20)
		}
	}
	for range 5 {
		if got := p.status(t); got.lsn != 0x1a0 {
			t.Fatalf("status = %+v", got)
		}
	}
	// A confirmation gets out too.
	stream.Confirm(0x1b0)
	for p.status(t).lsn != 0x1b0 {
	}
	if b := next(t, stream); b.Rows == 0 {
		t.Fatalf("batch = %+v", b)
	}
}

func TestSilentServerIsGivenUp(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	stream, p := open(t, s, every(20*time.Millisecond))
	pinged := false
	for !pinged {
		pinged = p.status(t).reply
	}
	err := ended(t, stream)
	wantCondition(t, err, "postgres_unreachable")
	if !retryable(err) || !strings.Contains(err.Error(), "no sign of life") || !strings.Contains(err.Error(), "walpost_orders") {
		t.Fatalf("error = %v", err)
	}
	if _, err := stream.Next(t.Context()); !errors.Is(err, stream.Err()) {
		t.Fatalf("Next = %v", err)
	}
}

// A server that answers pings lives, however long it has nothing to send.
func TestQuietServerIsKept(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	stream, p := open(t, s, every(300*time.Millisecond))
	for range 2 {
		for !p.status(t).reply {
		}
		p.put(t, copyData(keepalive(0x300, false)))
		next(t, stream).Recycle()
	}
}

// A message that takes longer to arrive than a server may be silent is a sign
// of life all the while.
func TestSlowMessageIsASignOfLife(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	stream, p := open(t, s, every(200*time.Millisecond))
	message := slices.Concat(described(), transaction(0x200, 0x208, "a"))
	for range 6 {
		p.put(t, message[:1])
		message = message[1:]
		p.status(t) // another interval has passed
	}
	p.put(t, message)
	if b := next(t, stream); b.Rows != 1 {
		t.Fatalf("batch = %+v", b)
	}
}

func TestEndsOfAStream(t *testing.T) {
	notice := func(code string) []byte {
		b, err := (&pgproto3.NoticeResponse{Severity: "WARNING", Code: code, Message: `skipped loading publication "p"`}).Encode(nil)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for name, tc := range map[string]struct {
		input     []byte
		condition string
		retry     bool
		text      string
	}{
		"eof":                      {nil, "postgres_unreachable", true, "EOF"},
		"eof inside a message":     {copyData(keepalive(1, false))[:9], "postgres_unreachable", true, "EOF"},
		"administrator":            {errorResponse(t, "57P01", "terminating connection due to administrator command"), "postgres_unreachable", true, "administrator command"},
		"publication missing":      {errorResponse(t, "42704", `publication "p" does not exist`), "publication_missing", false, "does not exist"},
		"publication skipped":      {notice("55000"), "publication_missing", false, "skipped loading"},
		"slot invalidated":         {errorResponse(t, "55000", "can no longer get changes"), "slot_lost", false, "no longer"},
		"corrupt":                  {errorResponse(t, "XX001", "invalid page"), "decode_failed", false, "invalid page"},
		"copy done":                {frame('c', nil), "postgres_unreachable", true, "the server ended the stream"},
		"shut down":                {frame('C', []byte("COPY 0\x00")), "postgres_unreachable", true, "the server ended the stream"},
		"unknown message":          {frame('?', nil), "postgres_unreachable", true, "unexpected message type"},
		"unknown copy data":        {copyData([]byte("?")), "decode_failed", false, "neither data nor a keepalive"},
		"empty copy data":          {copyData(nil), "decode_failed", false, "neither data nor a keepalive"},
		"short keepalive":          {copyData(keepalive(1, false)[:17]), "decode_failed", false, "neither data nor a keepalive"},
		"short data":               {copyData(xlogData(1, nil)), "decode_failed", false, "neither data nor a keepalive"},
		"undecodable":              {copyData(xlogData(1, []byte("?"))), "decode_failed", false, "unknown message kind"},
		"nonsense length":          {[]byte{'d', 0, 0, 0, 1}, "decode_failed", false, "makes no sense"},
		"error without terminator": {frame('E', []byte("Mx")), "postgres_unreachable", true, ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := newServer(t)
			stream, p := open(t, s)
			p.put(t, tc.input)
			if name[:3] == "eof" {
				_ = p.conn.Close()
			}
			err := ended(t, stream)
			wantCondition(t, err, tc.condition)
			if retryable(err) != tc.retry || !strings.Contains(err.Error(), tc.text) {
				t.Fatalf("retryable %t, %v; want %t, %q", retryable(err), err, tc.retry, tc.text)
			}
			if !strings.Contains(err.Error(), "stream from slot walpost_orders") {
				t.Fatalf("error does not say what was being done: %v", err)
			}
		})
	}
}

func TestHarmlessMessages(t *testing.T) {
	s := newServer(t)
	stream, p := open(t, s)
	notice, err := (&pgproto3.NoticeResponse{Severity: "NOTICE", Code: "00000", Message: "hello"}).Encode(nil)
	if err != nil {
		t.Fatal(err)
	}
	p.put(t, notice, frame('S', []byte("TimeZone\x00UTC\x00")), frame('A', []byte("\x00\x00\x00\x01c\x00p\x00")), copyData(keepalive(0x300, false)))
	if b := next(t, stream); b.WALEnd != 0x300 {
		t.Fatalf("batch = %+v", b)
	}
}

// What came before an error, in the same breath, is delivered before the
// error: else a transaction that can't be decoded would hold up the good ones
// before it at every attempt.
func TestWhatPrecedesAnErrorIsDelivered(t *testing.T) {
	for name, tc := range map[string]struct {
		bad       []byte
		condition string
	}{
		"undecodable":  {copyData(xlogData(0x300, []byte("?"))), "decode_failed"},
		"server error": {errorResponse(t, "55000", "gone"), "slot_lost"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newServer(t)
			stream, p := open(t, s)
			p.put(t, described(), transaction(0x200, 0x208, "a"), tc.bad)
			if b := next(t, stream); b.Rows != 1 || b.Segments[0].End != 0x208 {
				t.Fatalf("batch = %+v", b)
			}
			wantCondition(t, ended(t, stream), tc.condition)
		})
	}
}

// The error of a stream whose receiver is busy is the one that ended it, not
// what the broken connection says afterwards.
func TestErrorBehindABusyReceiver(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.prelude = slices.Concat(described(), transaction(0x200, 0x208, "a"))
	stream, p := open(t, s, every(200*time.Millisecond))
	p.put(t, transaction(0x220, 0x228, "b"), errorResponse(t, "55000", "gone"))
	_ = p.conn.Close() // status updates will fail, sooner or later
	wantCondition(t, ended(t, stream), "slot_lost")
}

func TestBatchesLeftByAnEndedStreamAreStillTaken(t *testing.T) {
	for range 20 {
		s := newServer(t)
		stream, p := open(t, s)
		p.put(t, described(), transaction(0x200, 0x208, "a"))
		_ = p.conn.Close()
		_ = ended(t, stream)
		if b := next(t, stream); b.Rows != 1 {
			t.Fatalf("batch = %+v", b)
		}
		if _, err := stream.Next(t.Context()); err == nil {
			t.Fatal("a second batch")
		}
	}
}

func TestNextEndsWithItsContext(t *testing.T) {
	s := newServer(t)
	stream, p := open(t, s)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := stream.Next(ctx); !errors.Is(err, context.Canceled) {
		t.Fatalf("Next = %v", err)
	}
	// The stream goes on.
	p.put(t, copyData(keepalive(0x300, false)))
	next(t, stream)
}

func TestStartErrors(t *testing.T) {
	for name, tc := range map[string]struct {
		code, condition string
		retry           bool
	}{
		"missing":     {"42704", "slot_missing", false},
		"busy":        {"55006", "slot_busy", true},
		"invalidated": {"55000", "slot_lost", false},
		"not allowed": {"42501", "postgres_auth_failed", true},
		"starting up": {"57P03", "postgres_unreachable", true},
	} {
		t.Run(name, func(t *testing.T) {
			s := newServer(t)
			s.answers["START_REPLICATION"] = answer{err: &pgproto3.ErrorResponse{Severity: "ERROR", Code: tc.code, Message: "as the server says it"}}
			conn, _ := dial(t, s)
			_, err := conn.Start(t.Context())
			wantCondition(t, err, tc.condition)
			if retryable(err) != tc.retry || !strings.Contains(err.Error(), "as the server says it") || !strings.Contains(err.Error(), "walpost_orders") {
				t.Fatalf("retryable %t: %v", retryable(err), err)
			}
			if !conn.pg.IsClosed() {
				t.Fatal("a connection that is out of step stays open")
			}
		})
	}
}

func TestDialErrors(t *testing.T) {
	refused := &pgproto3.ErrorResponse{Severity: "FATAL", Code: "3D000", Message: `database "app" does not exist`}
	failed := answer{err: &pgproto3.ErrorResponse{Severity: "ERROR", Code: "42501", Message: "no"}}
	for name, tc := range map[string]struct {
		script    func(*server)
		config    func(*Config)
		condition string
		retry     bool
	}{
		"no database":       {script: func(s *server) { s.refuse = refused }, condition: "postgres_unreachable", retry: true},
		"password":          {script: func(s *server) { s.password = "right" }, condition: "postgres_auth_failed", retry: true},
		"no server":         {script: func(s *server) { _ = s.listener.Close() }, condition: "postgres_unreachable", retry: true},
		"slot name":         {config: func(c *Config) { c.Slot = `x" LOGICAL` }, condition: "slot_missing"},
		"empty slot name":   {config: func(c *Config) { c.Slot = "" }, condition: "slot_missing"},
		"url":               {config: func(c *Config) { c.URL = "postgres://[::1" }, condition: "postgres_unreachable"},
		"password function": {config: func(c *Config) { c.Password = func() (string, error) { return "", os.ErrNotExist } }, condition: "postgres_auth_failed", retry: true},
		"set":               {script: func(s *server) { s.answers["SET"] = failed }, condition: "postgres_auth_failed", retry: true},
		"identify":          {script: func(s *server) { s.answers["IDENTIFY_SYSTEM"] = failed }, condition: "postgres_auth_failed", retry: true},
		"server facts":      {script: func(s *server) { s.answers[askServer] = failed }, condition: "postgres_auth_failed", retry: true},
		"slot facts":        {script: func(s *server) { s.answers[askSlot] = failed }, condition: "postgres_auth_failed", retry: true},
		"publication facts": {script: func(s *server) { s.answers[askPublication] = failed }, condition: "postgres_auth_failed", retry: true},
		"published tables":  {script: func(s *server) { s.answers[askTables] = failed }, condition: "postgres_auth_failed", retry: true},
		"no facts":          {script: func(s *server) { s.answers[askServer] = answer{} }, condition: "postgres_unreachable", retry: true},
		"odd version":       {script: func(s *server) { s.answers[askServer] = answer{rows: [][]string{{"false", "x", "logical"}}} }, condition: "postgres_unreachable", retry: true},
		"odd restart lsn": {script: func(s *server) {
			s.answers[askSlot] = answer{rows: [][]string{{"", "", "", "0", "", "", "x", "0/0", "", "", "", "", ""}}}
		}, condition: "postgres_unreachable", retry: true},
		"odd flush lsn": {script: func(s *server) {
			s.answers[askSlot] = answer{rows: [][]string{{"", "", "", "0", "", "", "0/0", "x", "", "", "", "", ""}}}
		}, condition: "postgres_unreachable", retry: true},
		"partitions": {script: func(s *server) { s.answers[askPartitions] = failed }, condition: "postgres_auth_failed", retry: true},
		"odd partition": {script: func(s *server) {
			s.answers[askPartitions] = answer{rows: [][]string{{"16384", "x", "", "", ""}}}
		}, condition: "postgres_unreachable", retry: true},
		"history": {script: func(s *server) { s.answers["TIMELINE_HISTORY 3"] = failed }, condition: "postgres_auth_failed", retry: true},
		"odd history": {script: func(s *server) {
			s.answers["TIMELINE_HISTORY 3"] = answer{rows: [][]string{{"00000003.history", "1 nowhere"}}}
		}, condition: "postgres_unreachable", retry: true},
		"odd oid": {script: func(s *server) {
			s.answers[askTables] = answer{rows: [][]string{{"public", "outbox", "x", "", ""}}}
		}, condition: "postgres_unreachable", retry: true},
	} {
		t.Run(name, func(t *testing.T) {
			s := newServer(t)
			cfg := s.config()
			if tc.script != nil {
				tc.script(s)
			}
			if tc.config != nil {
				tc.config(&cfg)
			}
			conn, _, err := Dial(t.Context(), cfg)
			if err == nil || conn != nil {
				t.Fatalf("Dial = %v, %v", conn, err)
			}
			wantCondition(t, err, tc.condition)
			if retryable(err) != tc.retry {
				t.Fatalf("retryable %t: %v", retryable(err), err)
			}
		})
	}
}

// A server that accepts and then says nothing holds nobody for ever.
func TestDialIsBounded(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0") // never accepts
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	_, _, err = Dial(t.Context(), Config{
		URL: fmt.Sprintf("postgres://walpost@%s/app?sslmode=disable", l.Addr()), Slot: "s", ConnectTimeout: 20 * time.Millisecond,
	})
	wantCondition(t, err, "postgres_unreachable")
}

func TestPasswordIsAskedForAtEachConnect(t *testing.T) {
	s := newServer(t)
	s.password = "second"
	given := []string{"first", "second"}
	cfg := s.config()
	cfg.Password = func() (string, error) {
		p := given[0]
		given = given[1:]
		return p, nil
	}
	_, _, err := Dial(t.Context(), cfg)
	wantCondition(t, err, "postgres_auth_failed")
	conn, _, err := Dial(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.Close(t.Context())
}

func TestNoErrorShowsThePassword(t *testing.T) {
	const secret = "hunter2"
	s := newServer(t)
	s.password = "right"
	addr := s.listener.Addr().String()
	host, port, _ := net.SplitHostPort(addr)
	for _, url := range []string{
		"postgres://walpost:" + secret + "@" + addr + "/app?sslmode=disable",
		"host=" + host + " port=" + port + " user=walpost dbname=app sslmode=disable password=" + secret,
		"postgres://walpost:" + secret + "@" + addr + "/app?sslmode=nonsense",
		"postgres://walpost:" + secret + "%zz@" + addr + "/app",
		"postgres://walpost:" + secret + "%zz" + secret + "@" + addr + "/app",
		"postgres://walpost:a:" + secret + "%zz@" + addr + "/app",
		"postgres://walpost:a@" + secret + "@" + addr + "/app",
		"postgres://walpost:a/" + secret + "@" + addr + "/app",
		"postgres://walpost:a?" + secret + "@" + addr + "/app",
		"postgres://walpost:a#" + secret + "@" + addr + "/app",
		"postgres://walpost:a b" + secret + "@" + addr + "/app",
		"postgres://walpost:1" + secret + "/" + addr + "/app",
		"postgres://" + addr + "/app?user=walpost&password=" + secret + "&sslmode=nonsense",
		"postgres://" + addr + "/app?user=walpost&pass%77ord=" + secret + "&sslmode=nonsense",
		"postgres://walpost:" + secret + "@[::1",
		"host=" + host + " sslmode=nonsense password=" + secret,
		"host=" + host + " sslmode=nonsense password = " + secret,
		"host=" + host + " sslmode=nonsense password='a " + secret + "'",
		"host=" + host + " sslmode=nonsense password='a\\' " + secret + "'",
		"host=" + host + " sslmode=nonsense password=a\\ " + secret,
		"host=" + host + " password='" + secret,
		"host=" + host + " port=x password=" + secret,
		"postgre://walpost:" + secret + "@" + addr + "/app",
		"walpost:" + secret + "@" + addr + "/app",
		secret,
	} {
		cfg := s.config()
		cfg.URL = url
		_, _, err := Dial(t.Context(), cfg)
		if err == nil {
			t.Errorf("%s was accepted", url)
			continue
		}
		for e := err; e != nil; e = errors.Unwrap(e) {
			if strings.Contains(e.Error(), secret) {
				t.Errorf("for %s the error is %v", url, e)
			}
		}
	}
	cfg := s.config()
	cfg.Password = func() (string, error) { return secret, nil }
	if _, _, err := Dial(t.Context(), cfg); err == nil || strings.Contains(err.Error(), secret) {
		t.Errorf("error = %v", err)
	}
}

func TestCloseSaysGoodbye(t *testing.T) {
	s := newServer(t)
	stream, p := open(t, s)
	stream.Confirm(0x500)
	closed := make(chan struct{})
	go func() {
		stream.Close()
		close(closed)
	}()
	farewell(t, p, 0x500)
	select {
	case <-closed:
		t.Fatal("Close did not wait for the server")
	default:
	}
	_ = p.conn.Close()
	<-closed
	stream.Close() // again
	if err := stream.Err(); err == nil {
		t.Fatal("no error after Close")
	}
	stream.Confirm(0x600) // harmless
	if _, err := stream.Next(t.Context()); err == nil {
		t.Fatal("a batch after Close")
	}
}

// farewell reads a session's end: status updates, of which the last confirms
// lsn, and Terminate.
func farewell(t *testing.T, p *peer, lsn uint64) {
	t.Helper()
	var last status
	for {
		kind, body, err := p.take()
		if err != nil {
			t.Fatalf("no farewell: %v", err)
		}
		if kind == 'X' {
			break
		}
		last = parseStatus(t, kind, body)
	}
	if last.lsn != lsn {
		t.Fatalf("last confirmed %#x, want %#x", last.lsn, lsn)
	}
}

// The slot is free only once the server has closed. A confirmation at the last
// moment interrupts reads; it must not cut this wait short.
func TestCloseWaitsForTheServerWhateverComes(t *testing.T) {
	s := newServer(t)
	stream, p := open(t, s)
	closed := make(chan struct{})
	go func() {
		stream.Close()
		close(closed)
	}()
	farewell(t, p, 0x1a0)
	for i := range uint64(100) {
		stream.Confirm(0x500 + i)
	}
	stillOpen(t, p)
	_ = p.conn.Close()
	<-closed
}

// stillOpen checks that the client has not closed its end: a read ends by its
// deadline instead.
func stillOpen(t *testing.T, p *peer) {
	t.Helper()
	_ = p.conn.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if _, err := p.conn.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("the client closed before the server let the slot go: %v", err)
	}
}

func TestCloseWhileTheReceiverIsBlocked(t *testing.T) {
	t.Parallel()
	for range 20 { // the goroutine that is told and the one that tells take turns
		s := newServer(t)
		s.prelude = slices.Concat(described(), transaction(0x200, 0x208, "a", "b", "c", "d"), transaction(0x210, 0x218, "a"))
		stream, p := open(t, s, func(c *Config) { c.BatchRows = 1 })
		var closers sync.WaitGroup
		for range 3 {
			closers.Go(stream.Close)
		}
		farewell(t, p, 0x1a0)
		stillOpen(t, p)
		_ = p.conn.Close()
		closers.Wait()
	}
}

// A server in the middle of sending is read until it has noticed.
func TestCloseDrainsWhatIsStillSent(t *testing.T) {
	s := newServer(t)
	s.prelude = slices.Concat(described(), copyData(xlogData(0x200, begin(0x200, 7))))
	stream, p := open(t, s)
	closed := make(chan struct{})
	go func() {
		stream.Close()
		close(closed)
	}()
	row := copyData(xlogData(0x200, insert(1, strings.Repeat("x", 64<<10))))
	for range 300 { // more than both sockets hold
		p.put(t, row)
	}
	farewell(t, p, 0x1a0)
	_ = p.conn.Close()
	<-closed
}

func TestCloseOfADeadStream(t *testing.T) {
	s := newServer(t)
	stream, p := open(t, s)
	_ = p.conn.Close()
	err := ended(t, stream)
	stream.Close()
	if !errors.Is(stream.Err(), err) || !errors.Is(err, io.EOF) {
		t.Fatalf("Err = %v", stream.Err())
	}
}

func TestCreateSlot(t *testing.T) {
	s := newServer(t)
	s.answers[askSlot] = answer{}
	conn, _ := dial(t, s)
	got, err := conn.CreateSlot(t.Context())
	if err != nil || got != (CreatedSlot{ConsistentPoint: 0x2b0, Snapshot: "00000003-1"}) {
		t.Fatalf("CreateSlot = %+v, %v", got, err)
	}
	stream, err := conn.Start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	p := <-s.streams
	if stream.Confirmed() != 0x2b0 {
		t.Errorf("Confirmed = %#x, want where the slot stands", stream.Confirmed())
	}
	_ = p.conn.Close()
	_ = ended(t, stream)
	if queries := s.asked(); !slices.ContainsFunc(queries, func(q string) bool {
		return strings.HasPrefix(q, "CREATE_REPLICATION_SLOT walpost_orders") && strings.Contains(q, "LOGICAL pgoutput") && strings.Contains(q, "EXPORT_SNAPSHOT")
	}) {
		t.Errorf("queries = %q", queries)
	}
}

// A slot that standbys get a copy of is what makes a promotion lossless; the
// command for it is not known before 17.
func TestCreateSlotForFailover(t *testing.T) {
	for version, want := range map[string]string{
		"160004": "CREATE_REPLICATION_SLOT walpost_orders LOGICAL pgoutput EXPORT_SNAPSHOT",
		"170000": "CREATE_REPLICATION_SLOT walpost_orders LOGICAL pgoutput (SNAPSHOT 'export', FAILOVER true)",
	} {
		s := newServer(t)
		s.answers[askServer] = answer{rows: [][]string{{"false", version, "logical"}}}
		conn, _ := dial(t, s)
		if _, err := conn.CreateSlot(t.Context()); err != nil {
			t.Fatal(err)
		}
		if queries := s.asked(); queries[len(queries)-1] != want {
			t.Errorf("%s is asked %q", version, queries[len(queries)-1])
		}
		_ = conn.Close(t.Context())
	}
}

// What a server doesn't know must not be asked of it.
func TestSlotColumnsByVersion(t *testing.T) {
	for version, absent := range map[string][]string{
		"150018": {"conflicting", "failover", "synced", "invalidation_reason"},
		"160004": {"failover", "synced", "invalidation_reason"},
		"180001": {},
	} {
		s := newServer(t)
		s.answers[askServer] = answer{rows: [][]string{{"false", version, "logical"}}}
		conn, _ := dial(t, s)
		_ = conn.Close(t.Context())
		asked := strings.Join(s.asked(), "\n")
		for _, column := range []string{"conflicting", "failover", "synced", "invalidation_reason"} {
			if known := !slices.Contains(absent, column); strings.Contains(asked, "s."+column) != known {
				t.Errorf("%s: %s asked for: %t", version, column, !known)
			}
		}
	}
}

func TestCreateSlotIsBoundedByItsContext(t *testing.T) {
	s := newServer(t)
	conn, _ := dial(t, s)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := conn.CreateSlot(ctx)
	wantCondition(t, err, "postgres_unreachable")
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("error = %v", err)
	}
	_ = conn.Close(t.Context())
}

func TestDropSlot(t *testing.T) {
	s := newServer(t)
	conn, _ := dial(t, s)
	if err := conn.DropSlot(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.answers["DROP_REPLICATION_SLOT"] = answer{err: &pgproto3.ErrorResponse{Severity: "ERROR", Code: "42704", Message: "no such slot"}}
	err := conn.DropSlot(t.Context())
	wantCondition(t, err, "slot_missing")
	if retryable(err) {
		t.Fatalf("error = %v", err)
	}
	_ = conn.Close(t.Context())
}
