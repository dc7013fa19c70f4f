package replication

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long a test waits for what must come: only a failing test
// ever waits so long.
const patience = 20 * time.Second

// answer is what the fake server says to one query.
type answer struct {
	rows     [][]string
	err      *pgproto3.ErrorResponse
	copyBoth bool
}

// server is a Postgres that speaks the protocol up to the start of streaming,
// by script, and then hands the connection to the test, which plays the rest.
type server struct {
	listener net.Listener
	password string // asked for if not empty
	refuse   *pgproto3.ErrorResponse
	answers  map[string]answer // by the beginning of the query; over the usual ones
	prelude  []byte            // what is streamed at once

	mu       sync.Mutex
	startup  map[string]string
	queries  []string
	streams  chan *peer // sessions that have begun to stream
	sessions sync.WaitGroup
	conns    []net.Conn
}

func newServer(t *testing.T) *server {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &server{listener: l, answers: map[string]answer{}, streams: make(chan *peer, 1)}
	s.sessions.Go(s.accept)
	t.Cleanup(s.stop)
	return s
}

// stop ends everything the server has started, and waits for it.
func (s *server) stop() {
	_ = s.listener.Close()
	s.mu.Lock()
	for _, c := range s.conns {
		_ = c.Close()
	}
	s.mu.Unlock()
	s.sessions.Wait()
}

func (s *server) url() string {
	return fmt.Sprintf("postgres://walpost@%s/app?sslmode=disable", s.listener.Addr())
}

func (s *server) accept() {
	for {
		conn, err := s.listener.Accept()
		if err != nil {
			return
		}
		s.mu.Lock()
		s.conns = append(s.conns, conn)
		s.mu.Unlock()
		s.sessions.Go(func() {
			if s.converse(conn) != nil {
				_ = conn.Close()
			}
		})
	}
}

// converse serves a session until it ends or streams.
func (s *server) converse(conn net.Conn) error {
	_ = conn.SetDeadline(time.Now().Add(patience))
	backend := pgproto3.NewBackend(conn, conn)
	if err := s.greet(backend); err != nil {
		return err
	}
	for {
		msg, err := backend.Receive()
		if err != nil {
			return err
		}
		q, ok := msg.(*pgproto3.Query)
		if !ok {
			return fmt.Errorf("unexpected %T", msg)
		}
		a := s.answer(q.String)
		if a.copyBoth {
			// What is streamed may arrive in one piece with this response.
			if _, err := conn.Write(append(frame('W', []byte{0, 0, 0}), s.prelude...)); err != nil {
				return err
			}
			s.streams <- &peer{conn: conn}
			return nil
		}
		reply(backend, a)
		if err := backend.Flush(); err != nil {
			return err
		}
	}
}

func (s *server) greet(backend *pgproto3.Backend) error {
	msg, err := backend.ReceiveStartupMessage()
	if err != nil {
		return err
	}
	startup, ok := msg.(*pgproto3.StartupMessage)
	if !ok {
		return fmt.Errorf("unexpected %T", msg)
	}
	s.mu.Lock()
	s.startup = startup.Parameters
	s.mu.Unlock()
	refuse := s.refuse
	if s.password != "" {
		backend.Send(&pgproto3.AuthenticationCleartextPassword{})
		if err := errors.Join(backend.Flush(), backend.SetAuthType(pgproto3.AuthTypeCleartextPassword)); err != nil {
			return err
		}
		msg, err := backend.Receive()
		if err != nil {
			return err
		}
		if p, ok := msg.(*pgproto3.PasswordMessage); !ok || p.Password != s.password {
			refuse = &pgproto3.ErrorResponse{Severity: "FATAL", Code: "28P01", Message: "password authentication failed for user \"walpost\""}
		}
	}
	if refuse != nil {
		backend.Send(refuse)
		return errors.Join(backend.Flush(), errors.New("refused"))
	}
	backend.Send(&pgproto3.AuthenticationOk{})
	backend.Send(&pgproto3.BackendKeyData{ProcessID: 1, SecretKey: []byte{0, 0, 0, 1}})
	backend.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
	return backend.Flush()
}

func reply(backend *pgproto3.Backend, a answer) {
	switch {
	case a.err != nil:
		backend.Send(a.err)
	case a.rows != nil:
		fields := make([]pgproto3.FieldDescription, 0)
		for len(a.rows) > 0 && len(fields) < len(a.rows[0]) {
			fields = append(fields, pgproto3.FieldDescription{Name: []byte("column"), DataTypeOID: 25, DataTypeSize: -1, TypeModifier: -1})
		}
		backend.Send(&pgproto3.RowDescription{Fields: fields})
		for _, r := range a.rows {
			values := make([][]byte, len(r))
			for i, v := range r {
				values[i] = []byte(v)
			}
			backend.Send(&pgproto3.DataRow{Values: values})
		}
		fallthrough
	default:
		backend.Send(&pgproto3.CommandComplete{CommandTag: []byte("OK")})
	}
	backend.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
}

// answer notes the query and finds the longest beginning that matches.
func (s *server) answer(sql string) answer {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.queries = append(s.queries, sql)
	var best string
	found := answer{}
	for _, set := range []map[string]answer{usualAnswers(), s.answers} {
		for beginning, a := range set {
			if strings.HasPrefix(sql, beginning) && len(beginning) >= len(best) {
				best, found = beginning, a
			}
		}
	}
	return found
}

const (
	askSlot        = "SELECT coalesce(s.plugin"
	askPublication = "SELECT pubinsert"
	askTables      = "SELECT t.schemaname"
	askPartitions  = "SELECT root.oid"
	askServer      = "SELECT pg_is_in_recovery"
	askRole        = "select pg_is_in_recovery()" // pgx, of several hosts
)

func usualAnswers() map[string]answer {
	return map[string]answer{
		"IDENTIFY_SYSTEM": {rows: [][]string{{"7000000000000000001", "3", "1/2000", "app"}}},
		askServer:         {rows: [][]string{{"false", "150018", "logical"}}},
		askSlot: {rows: [][]string{{"pgoutput", "app", "true", "4711", "walpost/orders", "2025-01-02 03:04:05+00",
			"0/100", "0/1A0", "reserved", "true", "true", "true", "wal_removed"}}},
		askRole:                   {rows: [][]string{{"f"}}},
		"TIMELINE_HISTORY 3":      {rows: [][]string{{"00000003.history", "1\t0/100\tno recovery target specified\n\n2\t0/1A0\tbefore\n"}}},
		askPublication:            {rows: [][]string{{"true", "true", "false", "16390:740 16391:741"}}},
		askTables:                 {rows: [][]string{{"public", "outbox", "16384", "id,payload", ""}}},
		askPartitions:             {rows: [][]string{{"16384", "16400", "outbox_1", "true", "750"}, {"16384", "16401", "outbox_2", "false", "751"}}},
		"START_REPLICATION":       {copyBoth: true},
		"CREATE_REPLICATION_SLOT": {rows: [][]string{{"walpost_orders", "0/2B0", "00000003-1", "pgoutput"}}},
	}
}

// asked returns the queries so far.
func (s *server) asked() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.queries...)
}

// peer is the server's end of a stream, in the hands of the test.
type peer struct {
	conn net.Conn
}

// put sends whole frames in one write, so that they arrive together.
func (p *peer) put(t *testing.T, frames ...[]byte) {
	t.Helper()
	var b []byte
	for _, f := range frames {
		b = append(b, f...)
	}
	_ = p.conn.SetWriteDeadline(time.Now().Add(patience))
	if _, err := p.conn.Write(b); err != nil {
		t.Fatalf("server writes: %v", err)
	}
}

// take reads one message of the client.
func (p *peer) take() (byte, []byte, error) {
	var header [frameHeader]byte
	_ = p.conn.SetReadDeadline(time.Now().Add(patience))
	if _, err := io.ReadFull(p.conn, header[:]); err != nil {
		return 0, nil, err
	}
	body := make([]byte, binary.BigEndian.Uint32(header[1:])-4)
	_, err := io.ReadFull(p.conn, body)
	return header[0], body, err
}

// status is a standby status update.
type status struct {
	lsn   uint64
	reply bool
}

// status waits for the next status update, and checks what holds for each: the
// three positions are one.
func (p *peer) status(t *testing.T) status {
	t.Helper()
	kind, body, err := p.take()
	if err != nil {
		t.Fatalf("no status update: %v", err)
	}
	return parseStatus(t, kind, body)
}

func parseStatus(t *testing.T, kind byte, body []byte) status {
	t.Helper()
	if kind != 'd' || len(body) != 34 || body[0] != 'r' {
		t.Fatalf("message %q of %d bytes is no status update", kind, len(body))
	}
	written, flushed, applied := binary.BigEndian.Uint64(body[1:]), binary.BigEndian.Uint64(body[9:]), binary.BigEndian.Uint64(body[17:])
	if written != flushed || flushed != applied {
		t.Fatalf("positions differ: written %#x, flushed %#x, applied %#x", written, flushed, applied)
	}
	micros := int64(binary.BigEndian.Uint64(body[25:]))
	clock := time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC).Add(time.Duration(micros) * time.Microsecond)
	if off := time.Since(clock).Abs(); off > time.Hour {
		t.Fatalf("the client's clock is %s off", off)
	}
	return status{lsn: flushed, reply: body[33] == 1}
}

// copyData wraps the body of a CopyData message.
func copyData(body []byte) []byte { return frame('d', body) }

// transaction is one as it is streamed: rows of a single column each.
func transaction(commitLSN, end uint64, ids ...string) []byte {
	b := copyData(xlogData(commitLSN, begin(commitLSN, 7)))
	for _, id := range ids {
		b = append(b, copyData(xlogData(commitLSN, insert(1, id)))...)
	}
	return append(b, copyData(xlogData(end, commit(commitLSN, end)))...)
}

func described() []byte { return copyData(xlogData(0, relation(1, "outbox", "id"))) }

// errorResponse is the frame of a server's error.
func errorResponse(t *testing.T, code, message string) []byte {
	t.Helper()
	b, err := (&pgproto3.ErrorResponse{Severity: "ERROR", Code: code, Message: message}).Encode(nil)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
