package app

import (
	"fmt"
	"log/slog"

	"github.com/walpost/walpost/internal/config"
	"github.com/walpost/walpost/outbox/mapping"
	"github.com/walpost/walpost/relay"
	"github.com/walpost/walpost/replication"
	"github.com/walpost/walpost/sink/kafka"
)

func replicationConfig(cfg *config.Config) replication.Config {
	c := replication.Config{
		URL:             cfg.Postgres.URL.Reveal(),
		Slot:            cfg.Postgres.Slot,
		Publication:     cfg.Postgres.Publication,
		ApplicationName: relay.ApplicationName(cfg.Pipeline),
		BatchRows:       min(maxBatchRows, cfg.Limits.MaxInFlightEvents), // a batch is admitted as a whole
	}
	if cfg.Postgres.Password.Configured() {
		c.Password = cfg.Postgres.Password.Read
	}
	return c
}

func kafkaSink(cfg *config.Config, log *slog.Logger) (*kafka.Sink, error) {
	sink, err := kafka.New(kafka.Config{
		Brokers:            cfg.Kafka.Brokers,
		Pipeline:           cfg.Pipeline,
		ClientID:           cfg.Kafka.ClientID,
		TransactionalID:    cfg.Kafka.Checkpoint.TransactionalID,
		CheckpointTopic:    cfg.Kafka.Checkpoint.Topic,
		MaxMessageBytes:    cfg.Kafka.MaxMessageBytes,
		Atomic:             cfg.Kafka.Delivery == config.DeliveryExactlyOnce,
		TransactionTimeout: cfg.Kafka.TransactionTimeout,
		Topics: kafka.TopicDefaults{
			Create:            cfg.Kafka.Topics.Create,
			Partitions:        int32(cfg.Kafka.Topics.Partitions),        //nolint:gosec // bounded by the configuration's check
			ReplicationFactor: int16(cfg.Kafka.Topics.ReplicationFactor), //nolint:gosec // likewise
			Config:            cfg.Kafka.Topics.Config,
		},
		CompactedTopics: cfg.Kafka.Topics.AllowCompacted,
		Routing:         relay.Fingerprint(tables(cfg)),
		Logger:          log,
	})
	if err != nil {
		return nil, fmt.Errorf("kafka: %w", err)
	}
	return sink, nil
}

func tables(cfg *config.Config) []mapping.Table {
	c := cfg.Outbox.Columns
	return []mapping.Table{{
		Schema: cfg.Outbox.Table.Schema,
		Name:   cfg.Outbox.Table.Name,
		Columns: mapping.Columns{
			ID: c.ID, AggregateType: c.AggregateType, AggregateID: c.AggregateID, Type: c.Type, Payload: c.Payload,
		},
		Topic: cfg.Outbox.Topic,
	}}
}

func relayConfig(cfg *config.Config, sink *kafka.Sink, log *slog.Logger, observer relay.Observer) relay.Config {
	return relay.Config{
		Pipeline:          cfg.Pipeline,
		Shard:             shard,
		Slot:              cfg.Postgres.Slot,
		Tables:            tables(cfg),
		Source:            relay.Postgres(replicationConfig(cfg)),
		Sink:              sink,
		Destination:       sink.ClusterID,
		Logger:            log,
		Observer:          observer,
		MaxInFlightEvents: cfg.Limits.MaxInFlightEvents,
		MaxInFlightBytes:  cfg.Limits.MaxInFlightBytes,
		ShutdownTimeout:   cfg.ShutdownTimeout,

		GroupEvents:          cfg.Kafka.GroupEvents,
		MaxTransactionEvents: cfg.Kafka.MaxTransactionEvents,
		TransactionTime:      cfg.Kafka.TransactionTimeout / 2,
		StopOversized:        cfg.Kafka.Oversized == config.OversizedStop,
	}
}

const maxBatchRows = 1024

// shard of a pipeline that has but one.
const shard = "0"
