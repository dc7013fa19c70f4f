package config

// malformed lists configurations that are refused, and how.
func malformed() []malformedCase {
	return []malformedCase{
		{
			name: "empty file",
			yaml: "",
			want: []string{
				`f.yaml: postgres.url: is missing; accepted: postgres://user@host:5432/database, or libpq's keyword=value pairs`,
				`f.yaml: kafka.brokers: is missing; accepted: a list of host:port, or one text with commas between them`,
			},
		},
		{
			name: "comments only",
			yaml: `# nothing yet
`,
			want: []string{
				`f.yaml: postgres.url: is missing; accepted: postgres://user@host:5432/database, or libpq's keyword=value pairs`,
				`f.yaml: kafka.brokers: is missing; accepted: a list of host:port, or one text with commas between them`,
			},
		},
		{
			name: "a list",
			yaml: `- postgres
- kafka
`,
			want: []string{
				`f.yaml:1:1: found a list; accepted: a mapping with http, kafka, limits, log, on_poison, on_stop, outbox, pipeline, postgres, shutdown_timeout, version`,
			},
		},
		{
			name: "a text",
			yaml: `postgres
`,
			want: []string{
				`f.yaml:1:1: found a text; accepted: a mapping with http, kafka, limits, log, on_poison, on_stop, outbox, pipeline, postgres, shutdown_timeout, version`,
			},
		},
		{
			name: "two documents",
			yaml: bothAddresses + `---
postgres: {url: "postgres://walpost@db/app"}
kafka: {brokers: ["k:9092"]}
`,
			want: []string{
				`f.yaml:4:1: found a second document; accepted: one`,
			},
		},
		{
			name: "unclosed quote",
			yaml: `pipeline: "orders
postgres: {url: "postgres://walpost@db/app"}
kafka: {brokers: ["k:9092"]}
`,
			want: []string{
				`f.yaml:2:18: not YAML: value is not allowed in this context. map key-value is pre-defined`,
			},
		},
		{
			name: "bad indentation",
			yaml: `kafka:
    brokers: [k:9092]
  delivery: idempotent
`,
			want: []string{
				`f.yaml:3:3: not YAML: value is not allowed in this context`,
			},
		},
		{
			name: "tab as indentation",
			yaml: `kafka:
	brokers: [k:9092]
`,
			want: []string{
				`f.yaml:2:1: not YAML: found character '	' that cannot start any token`,
			},
		},
		{
			name: "unclosed flow mapping",
			yaml: `postgres: {url: x, password: hunter2
`,
			want: []string{
				`f.yaml:1:11: not YAML: could not find flow mapping end token '}'`,
			},
		},
		{
			name: "anchor and alias",
			yaml: bothAddresses + `pipeline: &p orders
on_poison: *p
`,
			want: []string{
				`f.yaml:3:11: pipeline: found an anchor, alias or tag; accepted: the value itself, in quotes if it begins with &, * or !`,
				`f.yaml:4:12: on_poison: found an anchor, alias or tag; accepted: the value itself, in quotes if it begins with &, * or !`,
			},
		},
		{
			name: "tag",
			yaml: bothAddresses + `pipeline: !!str orders
`,
			want: []string{
				`f.yaml:3:11: pipeline: found an anchor, alias or tag; accepted: the value itself, in quotes if it begins with &, * or !`,
			},
		},
		{
			name: "merge key",
			yaml: bothAddresses + `<<: {pipeline: orders}
`,
			want: []string{
				`f.yaml:3:1: <<: unknown key; accepted here: http, kafka, limits, log, on_poison, on_stop, outbox, pipeline, postgres, shutdown_timeout, version`,
			},
		},
		{
			name: "unknown key at the top",
			yaml: bothAddresses + `piplines: orders
`,
			want: []string{
				`f.yaml:3:1: piplines: unknown key (did you mean pipeline?); accepted here: http, kafka, limits, log, on_poison, on_stop, outbox, pipeline, postgres, shutdown_timeout, version`,
			},
		},
		{
			name: "unknown key spelt alike",
			yaml: `postgres: {url: "postgres://db/app", slott: x}
kafka: {broker: ["k:9092"]}
`,
			want: []string{
				`f.yaml:1:38: postgres.slott: unknown key (did you mean slot?); accepted here: password, publication, slot, url`,
				`f.yaml:2:9: kafka.broker: unknown key (did you mean brokers?); accepted here: brokers, checkpoint, client_id, delivery, group_events, max_message_bytes, max_transaction_events, oversized, topics, transaction_timeout`,
				`f.yaml: kafka.brokers: is missing; accepted: a list of host:port, or one text with commas between them`,
			},
		},
		{
			name: "unknown key in the wrong case",
			yaml: `Postgres: {url: "postgres://db/app"}
kafka: {brokers: ["k:9092"]}
`,
			want: []string{
				`f.yaml:1:1: Postgres: unknown key (did you mean postgres?); accepted here: http, kafka, limits, log, on_poison, on_stop, outbox, pipeline, postgres, shutdown_timeout, version`,
				`f.yaml: postgres.url: is missing; accepted: postgres://user@host:5432/database, or libpq's keyword=value pairs`,
			},
		},
		{
			name: "unknown key of another section",
			yaml: bothAddresses + `slot: orders
`,
			want: []string{
				`f.yaml:3:1: slot: unknown key (did you mean postgres.slot?); accepted here: http, kafka, limits, log, on_poison, on_stop, outbox, pipeline, postgres, shutdown_timeout, version`,
			},
		},
		{
			name: "unknown key with nothing like it",
			yaml: bothAddresses + `limits: {colour: red}
`,
			want: []string{
				`f.yaml:3:10: limits.colour: unknown key; accepted here: max_in_flight_bytes, max_in_flight_events`,
			},
		},
		{
			name: "unknown nested section",
			yaml: bothAddresses + `sink: {kafka: {brokers: ["k:9092"]}}
`,
			want: []string{
				`f.yaml:3:1: sink: unknown key; accepted here: http, kafka, limits, log, on_poison, on_stop, outbox, pipeline, postgres, shutdown_timeout, version`,
			},
		},
		{
			name: "keys of a later version",
			yaml: bothAddresses + `outboxes: []
admin: {listen: "127.0.0.1:8172"}
prune: {mode: off}
`,
			want: []string{
				`f.yaml:3:1: outboxes: comes with a later version of walpost; accepted here: http, kafka, limits, log, on_poison, on_stop, outbox, pipeline, postgres, shutdown_timeout, version`,
				`f.yaml:4:1: admin: comes with a later version of walpost; accepted here: http, kafka, limits, log, on_poison, on_stop, outbox, pipeline, postgres, shutdown_timeout, version`,
				`f.yaml:5:1: prune: comes with a later version of walpost; accepted here: http, kafka, limits, log, on_poison, on_stop, outbox, pipeline, postgres, shutdown_timeout, version`,
			},
		},
		{
			name: "duplicate key",
			yaml: bothAddresses + `pipeline: a
pipeline: b
`,
			want: []string{
				`f.yaml:4:1: pipeline: found a second time; accepted: once (the first is on line 3)`,
			},
		},
		{
			name: "duplicate section",
			yaml: bothAddresses + `kafka: {client_id: x}
`,
			want: []string{
				`f.yaml:3:1: kafka: found a second time; accepted: once (the first is on line 2)`,
			},
		},
		{
			name: "duplicate topic setting",
			yaml: `postgres: {url: "postgres://db/app"}
kafka: {brokers: ["k:9092"], topics: {config: {retention.ms: 1, retention.ms: 2}}}
`,
			want: []string{
				`f.yaml:2:65: kafka.topics.config: found a name for the second time; accepted: once each`,
			},
		},
		{
			name: "future version",
			yaml: bothAddresses + `version: 2
`,
			want: []string{
				`f.yaml:3:10: version: found the number 2; accepted: the number 1`,
			},
		},
		{
			name: "version as text",
			yaml: bothAddresses + `version: "1"
`,
			want: []string{
				`f.yaml:3:10: version: found the text "1"; accepted: the number 1`,
			},
		},
		{
			name: "pipeline in upper case",
			yaml: bothAddresses + `pipeline: Orders
`,
			want: []string{
				`f.yaml:3:11: pipeline: found the text "Orders"; accepted: a name of 1 to 55 characters: a-z, then a-z, 0-9, _ or -`,
			},
		},
		{
			name: "pipeline too long",
			yaml: bothAddresses + `pipeline: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa
`,
			want: []string{
				`f.yaml:3:11: pipeline: found the text "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"; accepted: a name of 1 to 55 characters: a-z, then a-z, 0-9, _ or -`,
			},
		},
		{
			name: "pipeline is a number",
			yaml: bothAddresses + `pipeline: 7
`,
			want: []string{
				`f.yaml:3:11: pipeline: found the number 7; accepted: a name of 1 to 55 characters: a-z, then a-z, 0-9, _ or -`,
			},
		},
		{
			name: "pipeline left empty",
			yaml: bothAddresses + `pipeline:
`,
			want: []string{
				`f.yaml:3:11: pipeline: found nothing; accepted: a name of 1 to 55 characters: a-z, then a-z, 0-9, _ or -`,
			},
		},
		{
			name: "section is a text",
			yaml: bothAddresses + `log: debug
`,
			want: []string{
				`f.yaml:3:6: log: found a text; accepted: a mapping with format, level`,
			},
		},
		{
			name: "section is a list",
			yaml: bothAddresses + `log: [debug]
`,
			want: []string{
				`f.yaml:3:6: log: found a list; accepted: a mapping with format, level`,
			},
		},
		{
			name: "no addresses",
			yaml: `pipeline: orders
`,
			want: []string{
				`f.yaml: postgres.url: is missing; accepted: postgres://user@host:5432/database, or libpq's keyword=value pairs`,
				`f.yaml: kafka.brokers: is missing; accepted: a list of host:port, or one text with commas between them`,
			},
		},
		{
			name: "url without host",
			yaml: `postgres: {url: "postgres:///app"}
kafka: {brokers: ["k:9092"]}
`,
			want: []string{
				`f.yaml:1:17: postgres.url: found a text (names no host); accepted: postgres://user@host:5432/database, or libpq's keyword=value pairs`,
			},
		},
		{
			name: "url without database",
			yaml: `postgres: {url: "postgres://walpost@db"}
kafka: {brokers: ["k:9092"]}
`,
			want: []string{
				`f.yaml:1:17: postgres.url: found a text (names no database); accepted: postgres://user@host:5432/database, or libpq's keyword=value pairs`,
			},
		},
		{
			name: "url of another database",
			yaml: `postgres: {url: "mysql://hunter2@db/app"}
kafka: {brokers: ["k:9092"]}
`,
			want: []string{
				`f.yaml:1:17: postgres.url: found a text (neither a URL nor keyword=value pairs); accepted: postgres://user@host:5432/database, or libpq's keyword=value pairs`,
			},
		},
		{
			name: "url with an unescaped password",
			yaml: `postgres: {url: "postgres://walpost:hunter2/@db/app"}
kafka: {brokers: ["k:9092"]}
`,
			want: []string{
				`f.yaml:1:17: postgres.url: found a text (not a valid URL; special characters in user and password must be percent-encoded (@ is %40, / is %2F, : is %3A, # is %23)); accepted: postgres://user@host:5432/database, or libpq's keyword=value pairs`,
			},
		},
		{
			name: "url pairs with an open quote",
			yaml: `postgres: {url: "host=db password='hunter2"}
kafka: {brokers: ["k:9092"]}
`,
			want: []string{
				`f.yaml:1:17: postgres.url: found a text (a quote or an equals sign is missing in its keyword=value pairs); accepted: postgres://user@host:5432/database, or libpq's keyword=value pairs`,
			},
		},
		{
			name: "url is a number",
			yaml: `postgres: {url: 5432}
kafka: {brokers: ["k:9092"]}
`,
			want: []string{
				`f.yaml:1:17: postgres.url: found a number; accepted: postgres://user@host:5432/database, or libpq's keyword=value pairs`,
			},
		},
		{
			name: "password is a number",
			yaml: `postgres: {url: "postgres://db/app", password: 7331}
kafka: {brokers: ["k:9092"]}
`,
			want: []string{
				`f.yaml:1:48: postgres.password: found a number; accepted: a text, {file: path} or {env: NAME}`,
			},
		},
		{
			name: "password from nowhere",
			yaml: `postgres: {url: "postgres://db/app", password: {vault: hunter2}}
kafka: {brokers: ["k:9092"]}
`,
			want: []string{
				`f.yaml:1:48: postgres.password: found a mapping; accepted: a text, {file: path} or {env: NAME}`,
			},
		},
		{
			name: "password from two places",
			yaml: `postgres: {url: "postgres://db/app", password: {file: /run/pw, env: PW}}
kafka: {brokers: ["k:9092"]}
`,
			want: []string{
				`f.yaml:1:48: postgres.password: found a mapping; accepted: a text, {file: path} or {env: NAME}`,
			},
		},
		{
			name: "password left empty",
			yaml: `postgres:
  url: postgres://db/app
  password:
kafka: {brokers: ["k:9092"]}
`,
			want: []string{
				`f.yaml:3:12: postgres.password: found nothing; accepted: a text, {file: path} or {env: NAME}`,
			},
		},
		{
			name: "slot with a dash",
			yaml: `postgres: {url: "postgres://db/app", slot: my-slot}
kafka: {brokers: ["k:9092"]}
`,
			want: []string{
				`f.yaml:1:44: postgres.slot: found the text "my-slot"; accepted: 1 to 63 of a-z, 0-9 and _`,
			},
		},
		{
			name: "publication too long",
			yaml: `postgres: {url: "postgres://db/app", publication: pppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppp}
kafka: {brokers: ["k:9092"]}
`,
			want: []string{
				`f.yaml:1:51: postgres.publication: found the text "pppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppp"; accepted: a publication name of 1 to 63 bytes`,
			},
		},
		{
			name: "table without a schema",
			yaml: bothAddresses + `outbox: {table: outbox}
`,
			want: []string{
				`f.yaml:3:17: outbox.table: found the text "outbox" (not a schema and a table joined by one dot); accepted: schema.table as in SQL; names with other than lower-case letters, digits and _ in double quotes: '"My Schema"."Outbox"'`,
			},
		},
		{
			name: "table with three parts",
			yaml: bothAddresses + `outbox: {table: app.public.outbox}
`,
			want: []string{
				`f.yaml:3:17: outbox.table: found the text "app.public.outbox" (not a schema and a table joined by one dot); accepted: schema.table as in SQL; names with other than lower-case letters, digits and _ in double quotes: '"My Schema"."Outbox"'`,
			},
		},
		{
			name: "table with an open quote",
			yaml: bothAddresses + `outbox: {table: 'public."Out'}
`,
			want: []string{
				`f.yaml:3:17: outbox.table: found the text "public.\"Out" (a double quote is missing or stands inside a name unescaped); accepted: schema.table as in SQL; names with other than lower-case letters, digits and _ in double quotes: '"My Schema"."Outbox"'`,
			},
		},
		{
			name: "table with an unescaped quote",
			yaml: bothAddresses + `outbox: {table: 'public.Out"box'}
`,
			want: []string{
				`f.yaml:3:17: outbox.table: found the text "public.Out\"box" (a double quote is missing or stands inside a name unescaped); accepted: schema.table as in SQL; names with other than lower-case letters, digits and _ in double quotes: '"My Schema"."Outbox"'`,
			},
		},
		{
			name: "table with an empty name",
			yaml: bothAddresses + `outbox: {table: 'public.""'}
`,
			want: []string{
				`f.yaml:3:17: outbox.table: found the text "public.\"\"" (a name is empty or longer than 63 bytes); accepted: schema.table as in SQL; names with other than lower-case letters, digits and _ in double quotes: '"My Schema"."Outbox"'`,
			},
		},
		{
			name: "two columns the same",
			yaml: bothAddresses + `outbox: {columns: {id: event_id, aggregate_id: event_id}}
`,
			want: []string{
				`f.yaml:3:34: outbox.columns.aggregate_id: found "event_id", which is also outbox.columns.id; accepted: a column of its own`,
			},
		},
		{
			name: "column is the default of another",
			yaml: bothAddresses + `outbox:
  columns:
    aggregate_id: type
`,
			want: []string{
				`f.yaml:5:5: outbox.columns.type: found "type", which is also outbox.columns.aggregate_id; accepted: a column of its own`,
			},
		},
		{
			name: "column left empty",
			yaml: bothAddresses + `outbox: {columns: {payload: ''}}
`,
			want: []string{
				`f.yaml:3:29: outbox.columns.payload: found the text ""; accepted: a column name of 1 to 63 bytes, exactly as Postgres stores it`,
			},
		},
		{
			name: "topic with an unknown placeholder",
			yaml: bothAddresses + `outbox: {topic: "events.{aggregate_id}"}
`,
			want: []string{
				`f.yaml:3:17: outbox.topic: found the text "events.{aggregate_id}"; accepted: a topic name, in which {aggregate_type} stands for the row's aggregate type`,
			},
		},
		{
			name: "topic with a space",
			yaml: bothAddresses + `outbox: {topic: "my events"}
`,
			want: []string{
				`f.yaml:3:17: outbox.topic: found the text "my events"; accepted: a topic name, in which {aggregate_type} stands for the row's aggregate type`,
			},
		},
		{
			name: "topic that is the checkpoint's",
			yaml: bothAddresses + `outbox: {topic: walpost.checkpoint.outbox}
`,
			want: []string{
				`f.yaml:3:10: kafka.checkpoint.topic: found "walpost.checkpoint.outbox", which is also outbox.topic; accepted: a topic of its own`,
			},
		},
		{
			name: "brokers without a port",
			yaml: `postgres: {url: "postgres://db/app"}
kafka: {brokers: ["k:9092", k2]}
`,
			want: []string{
				`f.yaml:2:29: kafka.brokers[1]: found the text "k2"; accepted: a list of host:port, or one text with commas between them`,
			},
		},
		{
			name: "brokers as a text with an empty part",
			yaml: `postgres: {url: "postgres://db/app"}
kafka: {brokers: "k:9092,"}
`,
			want: []string{
				`f.yaml:2:18: kafka.brokers[1]: found the text ""; accepted: a list of host:port, or one text with commas between them`,
			},
		},
		{
			name: "brokers as mappings",
			yaml: `postgres: {url: "postgres://db/app"}
kafka: {brokers: [k1: 9092, {k2: 9092}, k3:[1]]}
`,
			want: []string{
				`f.yaml:2:19: kafka.brokers[0]: found a mapping; accepted: a list of host:port, or one text with commas between them`,
			},
		},
		{
			name: "no brokers",
			yaml: `postgres: {url: "postgres://db/app"}
kafka: {brokers: []}
`,
			want: []string{
				`f.yaml:2:18: kafka.brokers: found an empty list; accepted: a list of host:port, or one text with commas between them`,
			},
		},
		{
			name: "delivery unheard of",
			yaml: `postgres: {url: "postgres://db/app"}
kafka: {brokers: ["k:9092"], delivery: at-most-once}
`,
			want: []string{
				`f.yaml:2:40: kafka.delivery: found the text "at-most-once"; accepted: idempotent | exactly-once`,
			},
		},
		{
			name: "message size without a unit known",
			yaml: `postgres: {url: "postgres://db/app"}
kafka: {brokers: ["k:9092"], max_message_bytes: 1 megabyte}
`,
			want: []string{
				`f.yaml:2:49: kafka.max_message_bytes: found the text "1 megabyte"; accepted: a size from 1KiB to 100MiB, in bytes or with a unit: KiB, MiB, GiB, KB, MB, GB`,
			},
		},
		{
			name: "message size out of range",
			yaml: `postgres: {url: "postgres://db/app"}
kafka: {brokers: ["k:9092"], max_message_bytes: 1GiB}
`,
			want: []string{
				`f.yaml:2:49: kafka.max_message_bytes: found the text "1GiB"; accepted: a size from 1KiB to 100MiB, in bytes or with a unit: KiB, MiB, GiB, KB, MB, GB`,
			},
		},
		{
			name: "topics settings of wrong types",
			yaml: `postgres: {url: "postgres://db/app"}
kafka:
  brokers: ["k:9092"]
  topics:
    create: yes
    partitions: six
    replication_factor: 0
    config: {cleanup.policy: [delete]}
`,
			want: []string{
				`f.yaml:5:13: kafka.topics.create: found the text "yes"; accepted: true | false`,
				`f.yaml:6:17: kafka.topics.partitions: found the text "six"; accepted: an integer from 1 to 100000, or -1 for the broker's default`,
				`f.yaml:7:25: kafka.topics.replication_factor: found the number 0; accepted: an integer from 1 to 32767, or -1 for the broker's default`,
				`f.yaml:8:30: kafka.topics.config.cleanup.policy: found a list; accepted: a mapping of names to single values`,
			},
		},
		{
			name: "partitions as a quoted number",
			yaml: `postgres: {url: "postgres://db/app"}
kafka: {brokers: ["k:9092"], topics: {partitions: "6"}}
`,
			want: []string{
				`f.yaml:2:51: kafka.topics.partitions: found the text "6"; accepted: an integer from 1 to 100000, or -1 for the broker's default`,
			},
		},
		{
			name: "no events in flight",
			yaml: bothAddresses + `limits: {max_in_flight_events: 0}
`,
			want: []string{
				`f.yaml:3:32: limits.max_in_flight_events: found the number 0; accepted: an integer from 1 to 10000000`,
			},
		},
		{
			name: "bytes in flight below one message",
			yaml: `postgres: {url: "postgres://db/app"}
kafka: {brokers: ["k:9092"], max_message_bytes: 4MiB}
limits: {max_in_flight_bytes: 2MiB}
`,
			want: []string{
				`f.yaml:3:10: limits.max_in_flight_bytes: found 2MiB, less than kafka.max_message_bytes (4MiB): the largest event could never be sent; accepted: at least as much`,
			},
		},
		{
			name: "poison policy of a later version",
			yaml: bothAddresses + `on_poison: dead-letter
`,
			want: []string{
				`f.yaml:3:12: on_poison: found the text "dead-letter" (comes with a later version of walpost); accepted: stop`,
			},
		},
		{
			name: "on_stop unheard of",
			yaml: bothAddresses + `on_stop: restart
`,
			want: []string{
				`f.yaml:3:10: on_stop: found the text "restart"; accepted: exit | hold`,
			},
		},
		{
			name: "timeout without a unit",
			yaml: bothAddresses + `shutdown_timeout: 20
`,
			want: []string{
				`f.yaml:3:19: shutdown_timeout: found the number 20; accepted: a duration from 0s to 1h, such as 20s or 2m30s`,
			},
		},
		{
			name: "timeout below zero",
			yaml: bothAddresses + `shutdown_timeout: -1s
`,
			want: []string{
				`f.yaml:3:19: shutdown_timeout: found the text "-1s"; accepted: a duration from 0s to 1h, such as 20s or 2m30s`,
			},
		},
		{
			name: "listen without a port",
			yaml: bothAddresses + `http: {listen: 127.0.0.1}
`,
			want: []string{
				`f.yaml:3:16: http.listen: found the text "127.0.0.1"; accepted: host:port, or "" for no HTTP at all`,
			},
		},
		{
			name: "log level and format unheard of",
			yaml: bothAddresses + `log: {level: verbose, format: logfmt}
`,
			want: []string{
				`f.yaml:3:14: log.level: found the text "verbose"; accepted: debug | info | warn | error`,
				`f.yaml:3:31: log.format: found the text "logfmt"; accepted: auto | text | json`,
			},
		},
		{
			name: "variable not set",
			yaml: bothAddresses + `pipeline: ${NO_SUCH}
`,
			want: []string{
				`f.yaml:3:11: pipeline: the environment variable NO_SUCH is not set; set it, or write ${NO_SUCH:-default}`,
			},
		},
		{
			name: "variable not set in a secret",
			yaml: `postgres: {url: "postgres://w:${NO_SUCH}@db/app"}
kafka: {brokers: ["${NO_BROKER}:9092"]}
`,
			want: []string{
				`f.yaml:1:17: postgres.url: the environment variable NO_SUCH is not set; set it, or write ${NO_SUCH:-default}`,
				`f.yaml:2:19: kafka.brokers[0]: the environment variable NO_BROKER is not set; set it, or write ${NO_BROKER:-default}`,
			},
		},
		{
			name: "variable without its brace",
			yaml: bothAddresses + `pipeline: "${PIPELINE"
`,
			want: []string{
				`f.yaml:3:11: pipeline: found ${ without its }; accepted: ${VAR}, ${VAR:-default}, or $$ for a dollar sign`,
			},
		},
		{
			name: "variable without a name",
			yaml: bothAddresses + `pipeline: "${}"
`,
			want: []string{
				`f.yaml:3:11: pipeline: found a ${…} that names no variable; accepted: ${VAR}, ${VAR:-default}, or $$ for a dollar sign`,
			},
		},
		{
			name: "variable of the wrong type",
			yaml: bothAddresses + `kafka2: 1
limits: {max_in_flight_events: "${PIPELINE}"}
`,
			want: []string{
				`f.yaml:3:1: kafka2: unknown key (did you mean kafka?); accepted here: http, kafka, limits, log, on_poison, on_stop, outbox, pipeline, postgres, shutdown_timeout, version`,
				`f.yaml:4:32: limits.max_in_flight_events: found the text "orders"; accepted: an integer from 1 to 10000000`,
			},
		},
		{
			name: "many at once, in the file's order",
			yaml: `log: {level: loud}
pipeline: UP
kafka: {brokers: k, retries: 3}
`,
			want: []string{
				`f.yaml:1:14: log.level: found the text "loud"; accepted: debug | info | warn | error`,
				`f.yaml:2:11: pipeline: found the text "UP"; accepted: a name of 1 to 55 characters: a-z, then a-z, 0-9, _ or -`,
				`f.yaml:3:18: kafka.brokers[0]: found the text "k"; accepted: a list of host:port, or one text with commas between them`,
				`f.yaml:3:21: kafka.retries: unknown key; accepted here: brokers, checkpoint, client_id, delivery, group_events, max_message_bytes, max_transaction_events, oversized, topics, transaction_timeout`,
				`f.yaml: postgres.url: is missing; accepted: postgres://user@host:5432/database, or libpq's keyword=value pairs`,
			},
		},
	}
}
