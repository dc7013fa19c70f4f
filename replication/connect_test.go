package replication

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
)

// of is a URL that names several servers.
func of(params string, addresses ...string) string {
	return fmt.Sprintf("postgres://walpost@%s/app?sslmode=disable%s", strings.Join(addresses, ","), params)
}

func (s *server) address() string { return s.listener.Addr().String() }

// standby is a server that says it is in recovery.
func standby(t *testing.T) *server {
	t.Helper()
	s := newServer(t)
	s.answers[askRole] = answer{rows: [][]string{{"t"}}}
	s.answers["show transaction_read_only"] = answer{rows: [][]string{{"on"}}}
	s.answers[askServer] = answer{rows: [][]string{{"true", "150018", "logical"}}}
	return s
}

func primary(t *testing.T) *server {
	t.Helper()
	s := newServer(t)
	s.answers["show transaction_read_only"] = answer{rows: [][]string{{"off"}}}
	return s
}

// closedAddress refuses connections.
func closedAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	return l.Addr().String()
}

// silent accepts connections and never says a word.
func silent(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0") // the kernel accepts
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// Whatever stands before it in the list, the primary is found, and by the
// simple protocol: a walsender knows no other, nor does the fake.
func TestThePrimaryOfSeveralHostsIsFound(t *testing.T) {
	refusing := closedAddress(t)
	for _, params := range []string{"", "&target_session_attrs=any", "&target_session_attrs=primary", "&target_session_attrs=read-write"} {
		t.Run(params, func(t *testing.T) {
			wrong, right := standby(t), primary(t)
			starting := newServer(t)
			starting.refuse = &pgproto3.ErrorResponse{Severity: "FATAL", Code: "57P03", Message: "the database system is starting up"}
			conn, facts, err := Dial(t.Context(), Config{Slot: "walpost_orders", URL: of(params, refusing, starting.address(), wrong.address(), right.address())})
			if err != nil {
				t.Fatal(err)
			}
			if facts.InRecovery {
				t.Error("it is a standby")
			}
			if _, port, _ := net.SplitHostPort(right.address()); !strings.HasSuffix(conn.pg.Conn().RemoteAddr().String(), ":"+port) {
				t.Errorf("connected to %s", conn.pg.Conn().RemoteAddr())
			}
			// It streams from what it is connected to.
			stream, err := conn.Start(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			p := <-right.streams
			p.put(t, described(), transaction(0x200, 0x210, "a"))
			if b := next(t, stream); b.Rows != 1 {
				t.Errorf("batch = %+v", b)
			}
			_ = p.conn.Close()
			stream.Close()
		})
	}
}

// With one host there is no choice: the facts tell what it is.
func TestOneHostIsTakenAsItIs(t *testing.T) {
	s := standby(t)
	conn, facts := dial(t, s)
	_ = conn.Close(t.Context())
	if !facts.InRecovery {
		t.Error("it is no standby")
	}
	for _, q := range s.asked() {
		if q == askRole {
			t.Error("asked twice")
		}
	}
}

func TestWhoAsksForAStandbyGetsOne(t *testing.T) {
	for _, attrs := range []string{"standby", "read-only", "prefer-standby"} {
		wrong, right := standby(t), primary(t)
		conn, facts, err := Dial(t.Context(), Config{Slot: "walpost_orders", URL: of("&target_session_attrs="+attrs, right.address(), wrong.address())})
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.Close(t.Context())
		if !facts.InRecovery {
			t.Errorf("%s: connected to the primary", attrs)
		}
	}
}

// While nobody is promoted yet, that is what is said, and it is waited for.
func TestNoPrimaryAmongTheHosts(t *testing.T) {
	for _, url := range []string{
		of("", standby(t).address(), standby(t).address()),
		of("", closedAddress(t), standby(t).address()),
		of("&target_session_attrs=read-write", standby(t).address()),
		of("&target_session_attrs=primary", standby(t).address()),
	} {
		_, _, err := Dial(t.Context(), Config{Slot: "walpost_orders", URL: url})
		wantCondition(t, err, "server_in_recovery")
		if !retryable(err) {
			t.Errorf("not tried again: %v", err)
		}
	}
	refusing := standby(t)
	refusing.refuse = &pgproto3.ErrorResponse{Severity: "FATAL", Code: "28P01", Message: "password authentication failed"}
	_, _, err := Dial(t.Context(), Config{Slot: "walpost_orders", URL: of("", standby(t).address(), refusing.address())})
	wantCondition(t, err, "postgres_auth_failed")
}

// A host that hangs must leave time for the next, whatever the URL allows it.
func TestAHostThatHangsIsPassed(t *testing.T) {
	right := primary(t)
	hanging := silent(t).Addr().String()
	conn, facts, err := Dial(t.Context(), Config{Slot: "walpost_orders", URL: of("&connect_timeout=60", hanging, right.address())})
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.Close(t.Context())
	if facts.SystemID == "" {
		t.Error("no facts")
	}
}

func TestSeekPrimary(t *testing.T) {
	for _, tc := range []struct {
		url     string
		hosts   int
		timeout time.Duration
	}{
		{"postgres://u@a/app", 1, 0},
		{"postgres://u@a/app?sslmode=prefer&connect_timeout=60", 1, time.Minute}, // TLS, then none
		{"postgres://u@a,b/app?sslmode=prefer", 2, hostTimeout},
		{"postgres://u@a:1,a:2/app?connect_timeout=60", 2, hostTimeout},
		{"host=a,b,c port=1 user=u dbname=app connect_timeout=1", 3, time.Second},
	} {
		conf, err := pgconn.ParseConfig(tc.url)
		if err != nil {
			t.Fatal(err)
		}
		if n := SeekPrimary(conf); n != tc.hosts || conf.ConnectTimeout != tc.timeout || (conf.ValidateConnect != nil) != (n > 1) {
			t.Errorf("%s: %d hosts, %s each, validated: %t", tc.url, n, conf.ConnectTimeout, conf.ValidateConnect != nil)
		}
	}
	var c Conn
	c.cfg = Config{URL: "postgres://u@a,b,c/app", ConnectTimeout: 5 * time.Second}
	if _, limit, err := c.configure(); err != nil || limit != 9*time.Second {
		t.Errorf("limit %s, %v", limit, err)
	}
}

// The time that ends is the caller's.
func TestDialEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, _, err := Dial(ctx, Config{Slot: "walpost_orders", URL: of("", closedAddress(t), silent(t).Addr().String())})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error = %v", err)
	}
}
