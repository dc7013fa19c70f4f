package config

import (
	"math"
	"time"
)

// key describes one key of the file.
type key struct {
	path     string
	accepts  string
	def      string // as in the file; <pipeline> and <pipeline_> stand for its name
	required bool
	hidden   bool   // its value is never shown
	doc      string // meaning, consequence
	set      func(*Config, value) *refusal
}

// requiredKey in place of a default: the file must have the key.
const requiredKey = "\x00required"

// leaf ties a key to a field of Config.
func leaf[T any](path string, t accepted[T], def string, target func(*Config) *T, doc string) key {
	k := key{path: path, accepts: t.what, def: def, doc: doc}
	if def == requiredKey {
		k.def, k.required = "", true
	}
	k.set = func(c *Config, v value) *refusal {
		parsed, refused := t.parse(v)
		if refused == nil {
			*target(c) = parsed
		}
		return refused
	}
	return k
}

func hidden(k key) key {
	k.hidden = true
	return k
}

// keys lists them in the order of the documentation. pipeline comes first:
// other defaults are made of it.
func keys(environ Environ) []key {
	var all []key
	all = append(all, pipelineKeys()...)
	all = append(all, postgresKeys(environ)...)
	all = append(all, outboxKeys()...)
	all = append(all, kafkaKeys()...)
	return append(all, operationKeys()...)
}

func pipelineKeys() []key {
	return []key{
		leaf("pipeline", matching("a name of 1 to 55 characters: a-z, then a-z, 0-9, _ or -", `[a-z][a-z0-9_-]{0,54}`), "outbox",
			func(c *Config) *string { return &c.Pipeline },
			"Name of this relay. The defaults of slot, publication, client id, transactional id and checkpoint topic are made of it, and every event carries it in its `walpost-source` header. Changing it later makes another pipeline, with a position of its own: the old one's slot goes on holding WAL until it is dropped."),
		leaf("version", integerBetween(1, 1), "1",
			func(c *Config) *int { return &c.Version },
			"Version of this file's format. A later walpost that changes the meaning of a key counts it up, and then refuses files of the old version instead of misreading them."),
	}
}

func postgresKeys(environ Environ) []key {
	const slotName = `[a-z0-9_]{1,63}`
	return []key{
		hidden(leaf("postgres.url", connection(), requiredKey,
			func(c *Config) *DSN { return &c.Postgres.URL },
			"Where the database is, in any form that libpq takes; host and database must be named. It must lead to the primary and not through a pooler that shares connections. Of several hosts (`postgres://relay@db1,db2/app`) walpost takes the first that is not in recovery, unless `target_session_attrs` asks for another kind; `any` means `primary` here. A host that does not answer within 2 s is passed over. The role needs LOGIN and REPLICATION, no rights on the table. Use `sslmode=verify-full` wherever the network is not your own; without an `sslmode`, encryption is tried but not insisted on.")),
		hidden(leaf("postgres.password", secret(environ), "",
			func(c *Config) *Secret { return &c.Postgres.Password },
			"Password of the role; overrides one in the URL. From a file or a variable it is read again at each connect, so a rotated password needs no restart. Left out, the URL's password counts, then PGPASSWORD and the password file.")),
		leaf("postgres.slot", matching("1 to 63 of a-z, 0-9 and _", slotName), "walpost_<pipeline_>",
			func(c *Config) *string { return &c.Postgres.Slot },
			"Logical replication slot that `walpost init` makes and `walpost run` reads. Postgres keeps WAL for it until events are confirmed, so a slot that nobody reads fills the disk: drop it when the pipeline is given up. Two pipelines must never share one."),
		leaf("postgres.publication", identifier("a publication name of 1 to 63 bytes"), "walpost_<pipeline_>",
			func(c *Config) *string { return &c.Postgres.Publication },
			"Publication that tells Postgres which table to decode. Rows inserted while it is missing, or does not cover the table, are never decoded afterwards."),
	}
}

func outboxKeys() []key {
	column := func(name, def string, target func(*Config) *string, doc string) key {
		return leaf("outbox.columns."+name, identifier("a column name of 1 to 63 bytes, exactly as Postgres stores it"), def, target, doc)
	}
	return []key{
		leaf("outbox.table", tableName(), "public.outbox",
			func(c *Config) *Table { return &c.Outbox.Table },
			"Table whose inserts are the events. Updates and deletes of its rows publish nothing, so rows may be deleted at once, even in the transaction that inserts them."),
		column("id", "id", func(c *Config) *string { return &c.Outbox.Columns.ID },
			"Column of the event id. It becomes the `id` header, by which consumers recognise an event that came twice, so it must be unique and never reused."),
		column("aggregate_type", "aggregatetype", func(c *Config) *string { return &c.Outbox.Columns.AggregateType },
			"Column that says what kind of thing the event is about; it takes the place of `{aggregate_type}` in the topic."),
		column("aggregate_id", "aggregateid", func(c *Config) *string { return &c.Outbox.Columns.AggregateID },
			"Column that becomes the record key. Events with the same key go to the same partition and stay in commit order."),
		column("type", "type", func(c *Config) *string { return &c.Outbox.Columns.Type },
			"Column of the event's type."),
		column("payload", "payload", func(c *Config) *string { return &c.Outbox.Columns.Payload },
			"Column that becomes the record value, byte for byte as Postgres writes it; NULL becomes a tombstone."),
		leaf("outbox.topic", topicTemplate(), "outbox.event."+placeholder,
			func(c *Config) *string { return &c.Outbox.Topic },
			"Topic an event goes to, fixed or made of the row's aggregate type. A row whose aggregate type makes no valid topic name can't be published and is treated as `on_poison` says."),
	}
}

func kafkaKeys() []key {
	return []key{
		leaf("kafka.brokers", addresses(), requiredKey,
			func(c *Config) *[]string { return &c.Kafka.Brokers },
			"Brokers to ask first; the others are learnt from them. Name more than one, so that walpost can start while one is away."),
		leaf("kafka.delivery", oneOf([]string{DeliveryIdempotent, DeliveryExactlyOnce}), DeliveryIdempotent,
			func(c *Config) *string { return &c.Kafka.Delivery },
			"How events are delivered. `idempotent`: with the least latency; nothing is lost or reordered, and after a crash what was in flight at that moment may come twice. `exactly-once`: in Kafka transactions of whole Postgres transactions, together with the checkpoint; a consumer with `isolation.level=read_committed` sees each event once and each Postgres transaction wholly or not at all, a few milliseconds later. See docs/guarantees.md. It may be changed from one start to the next."),
		leaf("kafka.group_events", integerBetween(1, 1_000_000), "20000",
			func(c *Config) *int { return &c.Kafka.GroupEvents },
			"With `exactly-once`, from how many events on no further Postgres transaction joins the others in one Kafka transaction. It matters only while events wait: caught up, each Postgres transaction is committed by itself, at once."),
		leaf("kafka.max_transaction_events", integerBetween(1, 100_000_000), "100000",
			func(c *Config) *int { return &c.Kafka.MaxTransactionEvents },
			"With `exactly-once`, the size of the largest Postgres transaction that is published as a whole. One that takes longer than half of `kafka.transaction_timeout` to publish counts as larger."),
		leaf("kafka.oversized", oneOf([]string{OversizedSplit, OversizedStop}), OversizedSplit,
			func(c *Config) *string { return &c.Kafka.Oversized },
			"What happens to a larger one. `split`: it is published in several Kafka transactions, each event still once and in order, but a consumer may see one part before the next. `stop`: the relay stops with exit code 1 before anything of it is visible."),
		leaf("kafka.transaction_timeout", durationBetween(10*time.Second, 15*time.Minute), "1m",
			func(c *Config) *time.Duration { return &c.Kafka.TransactionTimeout },
			"With `exactly-once`, after how long brokers abort a Kafka transaction that is left open. While one is open, consumers of its partitions read nothing that comes after it, so this is how long a relay that dies for good can hold them up. It must not exceed the brokers' `transaction.max.timeout.ms` (15 minutes by default)."),
		leaf("kafka.client_id", matching("1 to 249 of A-Z, a-z, 0-9, dot, _ and -", `[A-Za-z0-9._-]{1,249}`), "walpost-<pipeline>",
			func(c *Config) *string { return &c.Kafka.ClientID },
			"Name that brokers show for this relay in their logs, metrics and quotas."),
		leaf("kafka.checkpoint.topic", topicName(), "walpost.checkpoint.<pipeline>",
			func(c *Config) *string { return &c.Kafka.Checkpoint.Topic },
			"Compacted topic of one partition in which the pipeline remembers how far it has come. It belongs to this pipeline alone. Pointing a pipeline at another topic makes it forget its position, and `walpost run` then stops instead of guessing."),
		leaf("kafka.checkpoint.transactional_id", matching("1 to 249 of A-Z, a-z, 0-9, dot, _ and -", `[A-Za-z0-9._-]{1,249}`), "walpost.<pipeline>",
			func(c *Config) *string { return &c.Kafka.Checkpoint.TransactionalID },
			"Transactional id under which the checkpoint is written; the relay's principal needs Write and Describe on it. A successor fences its predecessor by it, so two pipelines that share one stop each other."),
		leaf("kafka.max_message_bytes", sizeBetween(1<<10, 100<<20), "1020KiB",
			func(c *Config) *int { return &c.Kafka.MaxMessageBytes },
			"Largest message, key and headers included. A larger event is treated as `on_poison` says before anything of it is sent. It must stay a little below the topics' `max.message.bytes` (1048588 by default), or the broker refuses a whole batch for one large event."),
		leaf("kafka.topics.create", yesNo(), "false",
			func(c *Config) *bool { return &c.Kafka.Topics.Create },
			"Whether event topics that do not exist are created, with the settings below. With `false` an event for a missing topic holds up everything behind it until the topic is there."),
		leaf("kafka.topics.partitions", countOrBroker(100_000), "6",
			func(c *Config) *int { return &c.Kafka.Topics.Partitions },
			"Partitions of a topic that walpost creates. Existing topics are left alone: growing one later moves keys to other partitions, and their order across the change is lost."),
		leaf("kafka.topics.replication_factor", countOrBroker(math.MaxInt16), "-1",
			func(c *Config) *int { return &c.Kafka.Topics.ReplicationFactor },
			"Replicas of a topic that walpost creates. With a single replica an acknowledged event is lost with its broker's disk."),
		leaf("kafka.topics.config", textMap(), "{}",
			func(c *Config) *map[string]string { return &c.Kafka.Topics.Config },
			"Topic settings of a topic that walpost creates, such as `min.insync.replicas: 2`."),
		leaf("kafka.topics.allow_compacted", yesNo(), "false",
			func(c *Config) *bool { return &c.Kafka.Topics.AllowCompacted },
			"Whether events may go to topics whose `cleanup.policy` contains `compact`. With `false` the relay stops with exit code 1 before it writes to one. With `true`, an event whose record was compacted away before the checkpoint spoke of it is published again after a restart, with all that follow on its key; and a consumer that lags finds only the newest of a key's events. Compacted topics take no event without a key."),
	}
}

func operationKeys() []key {
	return []key{
		leaf("limits.max_in_flight_events", integerBetween(1, 10_000_000), "20000",
			func(c *Config) *int { return &c.Limits.MaxInFlightEvents },
			"Most events that are read and not yet acknowledged. At the limit walpost reads no further, and Postgres keeps the rest as WAL. Too low a limit costs throughput while catching up, never latency."),
		leaf("limits.max_in_flight_bytes", sizeBetween(1<<20, 64<<30), "32MiB",
			func(c *Config) *int { return &c.Limits.MaxInFlightBytes },
			"Most bytes held by such events. The process as a whole needs up to about five times as much. It can't be below `kafka.max_message_bytes`."),
		leaf("on_poison", oneOf([]string{"stop"}, "dead-letter", "park-key"), "stop",
			func(c *Config) *string { return &c.OnPoison },
			"What happens with an event that can never be published as it is. `stop`: the relay stops with exit code 1, and nothing from that event on is confirmed, so nothing is lost."),
		leaf("on_stop", oneOf([]string{OnStopExit, OnStopHold}), OnStopExit,
			func(c *Config) *string { return &c.OnStop },
			"What the process does when the relay has stopped for a condition that only a person can clear. `exit`: it ends with the condition's exit code. `hold`: it gives the slot back and keeps HTTP up, not ready, for orchestrators that would otherwise restart it in a loop."),
		leaf("shutdown_timeout", durationBetween(0, time.Hour), "20s",
			func(c *Config) *time.Duration { return &c.ShutdownTimeout },
			"How long a relay that was asked to stop waits for acknowledgements of what it has sent. What is not acknowledged by then is left to the next start. Keep it below the time after which your supervisor kills the process."),
		leaf("http.listen", listenAddress(), "127.0.0.1:8171",
			func(c *Config) *string { return &c.HTTP.Listen },
			"Address of `/livez`, `/readyz` and `/metrics`. They have no authentication and show no event data; `0.0.0.0:8171` or `:8171` makes them reachable from other machines."),
		leaf("log.level", oneOf([]string{"debug", "info", "warn", "error"}), "info",
			func(c *Config) *string { return &c.Log.Level },
			"Least level that is logged. Keys and payloads of events appear at none."),
		leaf("log.format", oneOf([]string{"auto", "text", "json"}), "auto",
			func(c *Config) *string { return &c.Log.Format },
			"Form of the log on standard error. `auto` is text on a terminal and JSON otherwise."),
	}
}

// laterKeys are known to the design of the file, but this version does not
// have them.
func laterKeys() []string {
	return []string{"outboxes", "admin", "prune", "kafka.checkpoint.fenced", "kafka.tls", "kafka.sasl"}
}
