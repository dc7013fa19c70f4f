package relay

import (
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"
)

// Severity says what a condition does to the relay.
type Severity string

const (
	// Warning: everything is delivered, but somebody should look.
	Warning Severity = "warning"
	// Blocking: nothing is delivered until it clears; the relay keeps trying.
	Blocking Severity = "blocking"
	// Fatal: the relay stops; only a person can decide what is right.
	Fatal Severity = "fatal"
)

// Exit codes of a relay that has stopped.
const (
	ExitOK         = 0 // done, or stopped as asked
	ExitFailed     = 1 // an event can't be published, or credentials are refused
	ExitUsage      = 2 // command line or configuration
	ExitContinuity = 3 // it can't be proven that nothing was lost
)

// definition is one row of the registry below.
type definition struct {
	name     string
	severity Severity
	exit     int // of a relay that stops for it
	remedy   string
}

// registry lists every condition, in the order they are shown. The names are
// stable: alerts and runbooks refer to them.
func registry() []definition {
	return []definition{
		{"postgres_unreachable", Blocking, ExitFailed, "check that Postgres runs and that postgres.url leads to it; walpost reconnects by itself"},
		{"kafka_unreachable", Blocking, ExitFailed, "check that the brokers run and that kafka.brokers and their advertised listeners are reachable from here; walpost reconnects by itself"},
		{"postgres_auth_failed", Blocking, ExitFailed, "check user and password in postgres.url, pg_hba.conf, and that the role has LOGIN REPLICATION"},
		{"kafka_auth_failed", Blocking, ExitFailed, "check the Kafka credentials and the ACLs of their principal"},
		{"topic_missing", Blocking, ExitFailed, "create the topic, or set kafka.topics.create: true"},
		{"slot_busy", Blocking, ExitFailed, "another walpost of this pipeline holds the slot; this one is a standby and takes over when it ends"},
		{"slot_foreign_holder", Blocking, ExitFailed, "a program that is not a walpost of this pipeline holds the slot; stop it, or give this pipeline a slot of its own"},
		{"slot_missing", Fatal, ExitContinuity, "the slot that the checkpoint belongs to is gone, and with it what was not yet read; see the runbook before `walpost init` makes a new one"},
		{"slot_lost", Fatal, ExitContinuity, "Postgres has invalidated the slot and removed WAL it needed; see the runbook"},
		{"slot_ahead_of_checkpoint", Fatal, ExitContinuity, "the slot was advanced or recreated by somebody else: events between checkpoint and slot may be unpublished; see the runbook"},
		{"checkpoint_missing", Fatal, ExitContinuity, "run `walpost init` for a new pipeline, or `walpost init --adopt-slot` to start from the existing slot's position"},
		{"checkpoint_too_new", Fatal, ExitContinuity, "a newer walpost wrote the checkpoint; run that version or a later one"},
		{"wrong_cluster", Fatal, ExitContinuity, "the checkpoint belongs to another Postgres cluster, database, slot, pipeline or Kafka cluster; correct postgres.url or kafka.brokers, or give this pipeline its own name"},
		{"server_in_recovery", Blocking, ExitContinuity, "this server is a standby; point postgres.url at the primary, or promote it"},
		{"history_diverged", Fatal, ExitContinuity, "this database's history is not the one the checkpoint was written for; see the runbook"},
		{"timeline_diverged", Fatal, ExitContinuity, "the server was promoted or restored since the checkpoint was written; see the runbook for what to check before going on"},
		{"publication_missing", Fatal, ExitContinuity, "create the publication as `walpost init --print-sql` shows, then see the runbook for what was inserted without it"},
		{"publication_changed", Fatal, ExitContinuity, "the publication no longer covers what it did; restore it, then see the runbook for what was inserted meanwhile"},
		{"kafka_lost_records", Fatal, ExitContinuity, "Kafka no longer holds records it had acknowledged; see the runbook"},
		{"decode_failed", Fatal, ExitFailed, "Postgres sent what walpost can't decode; nothing past it is confirmed; see the runbook"},
		{"poison_event", Fatal, ExitFailed, "the event named can't be published as it is; nothing past it is confirmed; see the runbook"},
		{"backpressured", Warning, ExitFailed, "the sink takes events more slowly than they are written; look at the brokers"},
		{"stalled", Blocking, ExitFailed, "look at the brokers: in-sync replicas and min.insync.replicas, disks, quotas"},
		{"wal_budget_low", Warning, ExitFailed, "the slot will be lost when max_slot_wal_keep_size is reached; let the relay catch up or raise the limit"},
		{"paused", Warning, ExitFailed, "the relay was paused by somebody; resume it"},
	}
}

// ConditionNames lists the stable names of all conditions.
func ConditionNames() []string {
	defs := registry()
	names := make([]string, len(defs))
	for i, d := range defs {
		names[i] = d.name
	}
	return names
}

// Condition is one that holds now.
type Condition struct {
	Name     string    `json:"name"`
	Severity Severity  `json:"severity"`
	Since    time.Time `json:"since"`
	Message  string    `json:"message"`
	Remedy   string    `json:"remedy"`
}

// Conditions knows which conditions hold. It logs each change of state once:
// setting one that holds already only renews its message. It logs outside its
// lock, so that a log nobody reads does not hold up health. Safe for concurrent
// use.
type Conditions struct {
	log *slog.Logger
	now func() time.Time

	mu     sync.Mutex
	active map[string]Condition
}

// NewConditions returns a set in which none holds.
func NewConditions(log *slog.Logger) *Conditions {
	return &Conditions{log: log, now: time.Now, active: map[string]Condition{}}
}

// Set makes the named condition hold. cause becomes its message; a remedy of
// the cause's own (Remedy() string) goes before the registry's.
func (c *Conditions) Set(name string, cause error) {
	def := define(name)
	cond := Condition{Name: name, Severity: def.severity, Message: cause.Error(), Remedy: def.remedy}
	if own := remedyOf(cause); own != "" {
		cond.Remedy = own
	}
	if !c.enter(cond) {
		return
	}
	logger(c.log, def.severity)("condition entered", "condition", name, "severity", string(def.severity), "error", cond.Message, "remedy", cond.Remedy)
}

// enter reports whether the condition is a new one.
func (c *Conditions) enter(cond Condition) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	cond.Since = c.now()
	old, held := c.active[cond.Name]
	if held {
		cond.Since = old.Since
	}
	c.active[cond.Name] = cond
	return !held
}

// Clear ends the named conditions, where they hold.
func (c *Conditions) Clear(names ...string) {
	for _, name := range names {
		if since, held := c.leave(name); held {
			c.log.Info("condition cleared", "condition", name, "lasted", c.now().Sub(since).Round(time.Millisecond).String())
		}
	}
}

func (c *Conditions) leave(name string) (since time.Time, held bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	old, held := c.active[name]
	delete(c.active, name)
	return old.Since, held
}

// List returns the conditions that hold, by name.
func (c *Conditions) List() []Condition {
	c.mu.Lock()
	defer c.mu.Unlock()
	list := make([]Condition, 0, len(c.active))
	for _, cond := range c.active {
		list = append(list, cond)
	}
	slices.SortFunc(list, func(a, b Condition) int { return strings.Compare(a.Name, b.Name) })
	return list
}

func define(name string) definition {
	for _, d := range registry() {
		if d.name == name {
			return d
		}
	}
	return definition{name: name, severity: Blocking, exit: ExitFailed}
}

func logger(log *slog.Logger, s Severity) func(msg string, args ...any) {
	if s == Warning {
		return log.Warn
	}
	return log.Error
}
