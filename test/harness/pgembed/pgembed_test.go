package pgembed

import (
	"context"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func start(t *testing.T, settings map[string]string) *Server {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	bin, err := Find(ctx, Search{Logf: t.Logf})
	if err != nil {
		t.Fatal(err)
	}
	server, err := Start(ctx, Config{Bin: bin, Settings: settings})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(server.dir.Path); !os.IsNotExist(err) {
			t.Errorf("%s is left behind: %v", server.dir.Path, err)
		}
	})
	return server
}

func query(t *testing.T, s *Server, sql string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, s.URL("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(ctx)
	var value string
	if err := conn.QueryRow(ctx, sql).Scan(&value); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return value
}

func TestDataAndPortSurviveStopKillAndRestart(t *testing.T) {
	s := start(t, map[string]string{"application_name": "embedded"})
	ctx := context.Background()
	port := s.Port()
	query(t, s, "select pg_create_logical_replication_slot('kept', 'pgoutput')::text")

	for name, bounce := range map[string]func() error{
		"stop fast":      func() error { return s.Stop(ctx, Fast) },
		"stop immediate": func() error { return s.Stop(ctx, Immediate) },
		"kill":           s.Kill,
	} {
		t.Run(name, func(t *testing.T) {
			if err := bounce(); err != nil {
				t.Fatal(err)
			}
			if _, err := pgx.Connect(ctx, s.URL("postgres")); err == nil {
				t.Fatal("still accepts connections")
			}
			if err := s.Start(ctx); err != nil {
				t.Fatal(err)
			}
			if got := query(t, s, "select count(*)::text from pg_replication_slots"); got != "1" || s.Port() != port {
				t.Errorf("count %s on port %d, want 1 on port %d", got, s.Port(), port)
			}
		})
	}
}

func TestSettings(t *testing.T) {
	s := start(t, map[string]string{"max_replication_slots": "7", "fsync": "on"})
	for setting, want := range map[string]string{
		"wal_level": "logical", "max_replication_slots": "7", "fsync": "on", "server_encoding": "UTF8", "port": strconv.Itoa(s.Port()),
	} {
		if got := query(t, s, "select current_setting('"+setting+"')"); got != want {
			t.Errorf("%s is %s, want %s", setting, got, want)
		}
	}
}

func TestPauseHoldsEveryProcess(t *testing.T) {
	s := start(t, nil)
	ctx := context.Background()
	conn, err := pgx.Connect(ctx, s.URL("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(ctx)
	if err := s.Pause(); err != nil {
		t.Fatal(err)
	}
	short, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
	defer cancel()
	if err := conn.Ping(short); err == nil {
		t.Error("an open connection answers while the server is paused")
	}
	if err := s.Resume(); err != nil {
		t.Fatal(err)
	}
	query(t, s, "select 'ok'")
}

func TestStartTellsWhatTheServerSaid(t *testing.T) {
	bin, err := Find(context.Background(), Search{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = Start(context.Background(), Config{Bin: bin, Settings: map[string]string{"wal_level": "nonsense"}})
	if err == nil || !strings.Contains(err.Error(), "wal_level") {
		t.Fatalf("want the server's own words, got %v", err)
	}
}

func TestFindRefusesAnIncompleteDirectory(t *testing.T) {
	t.Setenv("WALPOST_PG_BIN", t.TempDir())
	if _, err := Find(context.Background(), Search{}); err == nil {
		t.Fatal("want an error")
	}
}

func TestEveryMajorHasBinariesForThisPlatform(t *testing.T) {
	for major := OldestMajor; major <= NewestMajor; major++ {
		if _, err := (Search{Major: major}).artifact(); err != nil {
			t.Error(err)
		}
	}
	if _, err := (Search{Major: 9}).artifact(); err == nil {
		t.Error("Postgres 9: want an error")
	}
}
