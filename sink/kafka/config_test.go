package kafka

import (
	"strings"
	"testing"
	"time"
)

func TestConfigIsChecked(t *testing.T) {
	good := Config{Brokers: []string{"localhost:9092"}, Pipeline: "orders"}
	for name, c := range map[string]struct {
		change func(*Config)
		want   string // part of the error
	}{
		"no brokers":          {func(c *Config) { c.Brokers = nil }, "no brokers"},
		"broker without port": {func(c *Config) { c.Brokers = []string{"kafka"} }, `"kafka": want host:port`},
		"no pipeline":         {func(c *Config) { c.Pipeline = "" }, "pipeline"},
		"illegal topic":       {func(c *Config) { c.CheckpointTopic = "a b" }, `topic name "a b"`},
		"tiny messages":       {func(c *Config) { c.MaxMessageBytes = 10 }, "max message bytes"},
		"partitions":          {func(c *Config) { c.Topics.Partitions = -2 }, "-2 partitions"},
		"replication":         {func(c *Config) { c.Topics.ReplicationFactor = -2 }, "replication factor -2"},
		"negative time":       {func(c *Config) { c.StallTimeout = -time.Second }, "negative"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := good
			c.change(&cfg)
			if _, err := New(cfg); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("New: %v, want something about %q", err, c.want)
			}
		})
	}
	if _, err := New(good); err != nil {
		t.Error(err)
	}
}

func TestDefaultsAreNamedAfterThePipeline(t *testing.T) {
	cfg := newSink(t, Config{Brokers: []string{"localhost:9092"}, Pipeline: "orders"}).cfg
	if cfg.TransactionalID != "walpost.orders" || cfg.ClientID != "walpost.orders" || cfg.CheckpointTopic != "walpost.checkpoint.orders" {
		t.Errorf("transactional id %q, client id %q, checkpoint topic %q", cfg.TransactionalID, cfg.ClientID, cfg.CheckpointTopic)
	}
}

func TestSaramaAcceptsTheConfigurations(t *testing.T) {
	cfg := newSink(t, Config{Brokers: []string{"localhost:9092"}, Pipeline: "orders"}).cfg
	d := newDialer(cfg.DialTimeout)
	defer d.cut()
	if err := cfg.eventConfig(d).Validate(); err != nil {
		t.Error(err)
	}
	if err := cfg.marksConfig(d, func() bool { return false }).Validate(); err != nil {
		t.Error(err)
	}
}

func TestRetriesDoNotWaitOnceCut(t *testing.T) {
	d := newDialer(time.Second)
	wait := d.pace(txnBackoff)
	if early, late := wait(0, txnRetries), wait(txnQuick, txnRetries); early != txnQuickBackoff || late != txnSlowBackoff {
		t.Errorf("waits %s at first and %s later", early, late)
	}
	d.cut()
	if got := wait(txnQuick, txnRetries); got != 0 {
		t.Errorf("waits %s with its connections cut", got)
	}
}
