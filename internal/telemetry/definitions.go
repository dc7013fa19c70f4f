package telemetry

// metricDefinition describes one metric; docs/metrics.md is made of them.
type metricDefinition struct {
	name   string
	kind   string // counter, gauge, histogram
	labels []string
	help   string
	use    string // what it is good for
}

// metricDefinitions lists every metric of walpost's own. The names are stable:
// dashboards and alerts refer to them.
func metricDefinitions() []metricDefinition {
	return []metricDefinition{
		{"walpost_events_read_total", "counter", nil,
			"Events read from Postgres, those read again after a restart included.",
			"Its rate is how fast the application writes, or how fast walpost catches up."},
		{"walpost_events_published_total", "counter", []string{"topic"},
			"Events acknowledged by Kafka, by topic.",
			"Topics beyond the first 200 are counted together as `_other`."},
		{"walpost_event_commit_to_ack_seconds", "histogram", nil,
			"Time from an event's commit in Postgres to its acknowledgement by Kafka.",
			"The latency your consumers see, without their own part. Buckets from 0.25 ms to 1 h; it compares the database's clock with this machine's, so keep both synchronised."},
		{"walpost_replication_lag_bytes", "gauge", nil,
			"WAL written by the server and not yet confirmed by this relay, in bytes.",
			"The server's position is as of the last contact with it: while Kafka is away Postgres is left alone and this stands still, so alert on the age of the oldest event, or ask Postgres. Left out while either position is unknown."},
		{"walpost_oldest_unacked_event_age_seconds", "gauge", nil,
			"Age of the oldest event that is read and not acknowledged, since its commit; 0 if there is none.",
			"The first thing to alert on: it grows second by second when Kafka takes nothing, and for as long as an outage lasts."},
		{"walpost_in_flight_events", "gauge", nil,
			"Events read and not yet in the acknowledged prefix.",
			"At `limits.max_in_flight_events` the relay reads no further."},
		{"walpost_in_flight_bytes", "gauge", nil,
			"Memory held by such events, in bytes.",
			"At `limits.max_in_flight_bytes` the relay reads no further."},
		{"walpost_server_lsn_bytes", "gauge", nil,
			"Newest WAL position known of the server, in bytes from the beginning of its WAL.",
			"As of the last contact with it. Left out while unknown."},
		{"walpost_confirmed_lsn_bytes", "gauge", nil,
			"WAL position confirmed to Postgres, in bytes from the beginning of its WAL.",
			"Everything up to it is in Kafka, and Postgres may forget it. Left out while unknown."},
		{"walpost_pipeline_restarts_total", "counter", []string{"reason"},
			"Pipelines that ended and were started again, by the condition that ended them.",
			"`error` where no condition explains it. A few around an outage are normal."},
		{"walpost_duplicates_skipped_total", "counter", nil,
			"Events not sent because Kafka already held them.",
			"Grows after a restart of the relay or of a session, by what the checkpoint covered and Postgres sent again, and by what was published since the checkpoint; else it stands still. Such events are not in `walpost_events_published_total`."},
		{"walpost_last_progress_timestamp_seconds", "gauge", nil,
			"Unix time at which an event was last settled or a position last confirmed.",
			"An idle relay confirms what other tables write, so it moves on as long as the server's WAL does. Left out until there was progress."},
		{"walpost_role", "gauge", []string{"role"},
			"1 for the state the relay is in (starting, streaming, standby, stopping, stopped), 0 for the others.",
			"`max by (pipeline) (walpost_role{role=\"streaming\"}) == 0`: no instance delivers."},
		{"walpost_condition", "gauge", []string{"condition"},
			"1 while the named condition holds, else 0; every condition is always exported.",
			"`/readyz?verbose` tells since when, why, and what to do."},
		{"walpost_build_info", "gauge", []string{"version", "revision", "go_version"},
			"Always 1; its labels say which walpost runs.",
			"Join with it to see a deployment on a graph."},
	}
}
