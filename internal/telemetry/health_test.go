package telemetry

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/walpost/walpost/relay"
)

func get(t *testing.T, status relay.Status, started time.Time, path string) (int, string) {
	t.Helper()
	clock := started
	h := newHandler(func() relay.Status { return status }, http.NotFoundHandler(), func() time.Time { return clock })
	clock = noon()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil))
	return w.Code, w.Body.String()
}

func TestLivez(t *testing.T) {
	long := noon().Add(-time.Hour)
	for _, tc := range []struct {
		name    string
		status  relay.Status
		started time.Time
		want    int
	}{
		{"loops turn", relay.Status{State: relay.Streaming, Heartbeat: noon().Add(-29 * time.Second)}, long, 200},
		{"loops hang", relay.Status{State: relay.Streaming, Heartbeat: noon().Add(-30 * time.Second)}, long, 503},
		{"nothing outside matters", relay.Status{State: relay.Starting, Heartbeat: noon(), Conditions: []relay.Condition{{Name: "kafka_unreachable", Severity: relay.Blocking}}}, long, 200},
		{"the relay has yet to begin", relay.Status{State: relay.Starting}, noon().Add(-time.Second), 200},
		{"the relay never began", relay.Status{State: relay.Starting}, long, 503},
		{"stopped and held", relay.Status{State: relay.Stopped, Heartbeat: long}, long, 200},
	} {
		for _, path := range []string{"/livez", "/healthz"} {
			if code, body := get(t, tc.status, tc.started, path); code != tc.want {
				t.Errorf("%s: %s is %d, want %d: %s", tc.name, path, code, tc.want, body)
			}
		}
	}
}

func TestReadyz(t *testing.T) {
	condition := func(name string, severity relay.Severity) relay.Condition {
		return relay.Condition{Name: name, Severity: severity, Since: noon(), Message: "it\nbroke", Remedy: "mend it"}
	}
	streaming := relay.Status{State: relay.Streaming, Since: noon()}
	with := func(s relay.Status, cs ...relay.Condition) relay.Status {
		s.Conditions = cs
		return s
	}
	for _, tc := range []struct {
		name   string
		status relay.Status
		query  string
		code   int
		want   []string
	}{
		{"streaming", streaming, "", 200, []string{"ok\n"}},
		{"starting", relay.Status{State: relay.Starting, Since: noon()}, "", 503, []string{"[-]state starting since 2026-03-01T12:00:00Z\n"}},
		{"stopped", relay.Status{State: relay.Stopped}, "", 503, []string{"[-]state stopped"}},
		{"a warning", with(streaming, condition("backpressured", relay.Warning)), "?verbose", 200,
			[]string{"[+]state streaming", "[+]backpressured ok: warning since 2026-03-01T12:00:00Z: it broke; remedy: mend it\n", "[+]slot_lost ok\n", "readyz check passed\n"}},
		{"a blocking condition", with(streaming, condition("kafka_unreachable", relay.Blocking)), "", 503,
			[]string{"[-]kafka_unreachable failed: blocking since 2026-03-01T12:00:00Z: it broke; remedy: mend it\n", "readyz check failed\n"}},
		{"excluded", with(streaming, condition("kafka_unreachable", relay.Blocking)), "?verbose&exclude=kafka_unreachable", 200,
			[]string{"[+]kafka_unreachable excluded: ok\n"}},
		{"another excluded", with(streaming, condition("kafka_unreachable", relay.Blocking)), "?exclude=stalled&exclude=slot_busy", 503,
			[]string{"[-]kafka_unreachable"}},
		{"healthy standby", with(relay.Status{State: relay.Standby}, condition("slot_busy", relay.Blocking)), "", 200, []string{"ok\n"}},
		{"standby behind a stranger", with(relay.Status{State: relay.Standby}, condition("slot_foreign_holder", relay.Blocking)), "", 503, []string{"[-]slot_foreign_holder"}},
		{"unknown condition excluded", streaming, "?exclude=weather", 400, []string{"exclude names no condition; there are: postgres_unreachable, "}},
	} {
		code, body := get(t, tc.status, noon(), "/readyz"+tc.query)
		if code != tc.code {
			t.Errorf("%s: %d, want %d: %s", tc.name, code, tc.code, body)
		}
		for _, want := range tc.want {
			if !strings.Contains(body, want) {
				t.Errorf("%s: no %q in:\n%s", tc.name, want, body)
			}
		}
	}
}

func TestOnlyGet(t *testing.T) {
	h := Handler(func() relay.Status { return relay.Status{} }, http.NotFoundHandler())
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/livez", nil))
	if w.Code != http.StatusMethodNotAllowed {
		t.Errorf("POST /livez is %d", w.Code)
	}
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// A request under way is answered although the server was asked to end.
func TestServeEndsGracefully(t *testing.T) {
	l, err := Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	entered, release := make(chan struct{}), make(chan struct{})
	h := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		close(entered)
		<-release
		_, _ = w.Write([]byte("answered"))
	})
	served := make(chan error, 1)
	go func() { served <- Serve(ctx, l, h, quiet()) }()
	answers := make(chan string, 1)
	go func() { answers <- fetch(t, "http://"+l.Addr().String()) }()
	<-entered
	cancel()
	waitRefused(t, l.Addr().String())
	close(release)
	if got := <-answers; got != "answered" {
		t.Errorf("answer %q", got)
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
}

func fetch(t *testing.T, url string) string {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		return err.Error()
	}
	response, err := client.Do(r)
	if err != nil {
		return err.Error()
	}
	defer func() { _ = response.Body.Close() }()
	raw, err := io.ReadAll(response.Body)
	if err != nil {
		return err.Error()
	}
	return string(raw)
}

// waitRefused returns once the listener is closed: the shutdown has begun.
func waitRefused(t *testing.T, address string) {
	t.Helper()
	for {
		c, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", address)
		if err != nil {
			return
		}
		_ = c.Close()
	}
}

func TestServeReportsALostListener(t *testing.T) {
	l, err := Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
	if err := Serve(t.Context(), l, http.NotFoundHandler(), quiet()); !errors.Is(err, net.ErrClosed) {
		t.Errorf("got %v", err)
	}
}

func TestListenOnAUsedAddress(t *testing.T) {
	l, err := Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	_, err = Listen(t.Context(), l.Addr().String())
	var remedied interface{ Remedy() string }
	if !errors.Is(err, syscall.EADDRINUSE) || !errors.As(err, &remedied) || !strings.Contains(err.Error(), l.Addr().String()) {
		t.Errorf("got %v", err)
	}
}

func TestLogger(t *testing.T) {
	for _, tc := range []struct {
		level, format string
		terminal      bool
		want, not     string
	}{
		{"info", "auto", true, "level=INFO msg=hello pipeline=p", "level=DEBUG"},
		{"info", "auto", false, `"level":"INFO","msg":"hello","pipeline":"p"}`, "DEBUG"},
		{"debug", "text", false, "level=DEBUG msg=detail", "{"},
		{"warn", "json", true, "", "hello"},
		{"error", "json", true, "", "hello"},
	} {
		var b bytes.Buffer
		log := NewLogger(&b, tc.level, tc.format, tc.terminal)
		log.Debug("detail")
		log.Info("hello", "pipeline", "p")
		if !strings.Contains(b.String(), tc.want) || strings.Contains(b.String(), tc.not) {
			t.Errorf("%+v: got %s", tc, b.String())
		}
	}
}
