package telemetry

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/walpost/walpost/relay"
)

// heartbeatLimit is how old the relay's heartbeat may get. While it streams the
// loop that watches beats each second, and takes the locks that all others take;
// between pipelines each bounded step of opening one beats. A deadlock, or a
// process that was stopped, lets this pass.
const heartbeatLimit = 30 * time.Second

// health answers the probes of an orchestrator.
type health struct {
	status  func() relay.Status
	now     func() time.Time
	started time.Time
}

// Handler serves /livez (also as /healthz), /readyz and /metrics.
//
// /livez is 200 as long as the relay's own loops turn, and also when it has
// stopped for good and is held: a restart would change nothing. It depends on
// nothing outside the process.
//
// /readyz is 200 when events flow or would if this instance had to take over,
// else 503 with the conditions in the way. ?verbose lists all conditions;
// ?exclude=<condition>, which may be repeated, leaves one out of account.
func Handler(status func() relay.Status, metrics http.Handler) http.Handler {
	return newHandler(status, metrics, time.Now)
}

func newHandler(status func() relay.Status, metrics http.Handler, now func() time.Time) http.Handler {
	h := &health{status: status, now: now, started: now()}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", h.livez)
	mux.HandleFunc("GET /healthz", h.livez)
	mux.HandleFunc("GET /readyz", h.readyz)
	mux.Handle("GET /metrics", metrics)
	return mux
}

func (h *health) livez(w http.ResponseWriter, _ *http.Request) {
	s := h.status()
	switch s.State {
	case relay.Stopped:
		respond(w, http.StatusOK, "ok: stopped, see /readyz?verbose\n")
		return
	case relay.Stopping: // bounded by shutdown_timeout, not by this probe
		respond(w, http.StatusOK, "ok: stopping\n")
		return
	case relay.Starting, relay.Streaming, relay.Standby:
	}
	beat := s.Heartbeat
	if beat.Before(h.started) { // the relay has yet to begin
		beat = h.started
	}
	if age := h.now().Sub(beat); age >= heartbeatLimit {
		respond(w, http.StatusServiceUnavailable, fmt.Sprintf("the relay's loops have not turned for %s\n", age.Round(time.Second)))
		return
	}
	respond(w, http.StatusOK, "ok\n")
}

func (h *health) readyz(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	exclude := query["exclude"]
	for _, name := range exclude {
		if !slices.Contains(relay.ConditionNames(), name) {
			respond(w, http.StatusBadRequest, "exclude names no condition; there are: "+strings.Join(relay.ConditionNames(), ", ")+"\n")
			return
		}
	}
	s := h.status()
	code, verdict := http.StatusOK, "readyz check passed\n"
	if !s.Ready(exclude...) {
		code, verdict = http.StatusServiceUnavailable, "readyz check failed\n"
	}
	switch {
	case query.Has("verbose"):
		respond(w, code, verbose(s, exclude)+verdict)
	case code == http.StatusOK:
		respond(w, code, "ok\n")
	default:
		respond(w, code, brief(s, exclude)+verdict)
	}
}

// brief lists what is in the way.
func brief(s relay.Status, exclude []string) string {
	var b strings.Builder
	b.WriteString(stateLine(s))
	for _, c := range s.Obstacles(exclude...) {
		b.WriteString(failed(c))
	}
	return b.String()
}

// verbose lists every condition, as Kubernetes' own readyz does its checks.
func verbose(s relay.Status, exclude []string) string {
	held := map[string]relay.Condition{}
	for _, c := range s.Conditions {
		held[c.Name] = c
	}
	inTheWay := map[string]bool{}
	for _, c := range s.Obstacles(exclude...) {
		inTheWay[c.Name] = true
	}
	var b strings.Builder
	b.WriteString(stateLine(s))
	for _, name := range relay.ConditionNames() {
		c, holds := held[name]
		switch {
		case inTheWay[name]:
			b.WriteString(failed(c))
		case slices.Contains(exclude, name):
			fmt.Fprintf(&b, "[+]%s excluded: ok\n", name)
		case holds:
			fmt.Fprintf(&b, "[+]%s ok: %s\n", name, explain(c))
		default:
			fmt.Fprintf(&b, "[+]%s ok\n", name)
		}
	}
	return b.String()
}

func stateLine(s relay.Status) string {
	mark := "[-]"
	if s.State == relay.Streaming || s.State == relay.Standby {
		mark = "[+]"
	}
	return fmt.Sprintf("%sstate %s since %s\n", mark, s.State, stamp(s.Since))
}

func failed(c relay.Condition) string { return fmt.Sprintf("[-]%s failed: %s\n", c.Name, explain(c)) }

// explain is one line whatever the message holds.
func explain(c relay.Condition) string {
	text := fmt.Sprintf("%s since %s: %s; remedy: %s", c.Severity, stamp(c.Since), c.Message, c.Remedy)
	return strings.Join(strings.Fields(text), " ")
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

func respond(w http.ResponseWriter, code int, body string) {
	header := w.Header()
	header.Set("Content-Type", "text/plain; charset=utf-8")
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("Cache-Control", "no-store")
	w.WriteHeader(code)
	_, _ = w.Write([]byte(body)) // a prober that went away needs no answer
}
