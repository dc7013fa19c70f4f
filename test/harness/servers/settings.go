package servers

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Names of the kinds, in reports and errors.
const (
	namePostgres = "postgres"
	nameKafka    = "kafka"
)

// Superuser is the role of every Postgres, without a password.
const Superuser = "postgres"

// postgresSettings allow for many tests at once, and for no durability.
func postgresSettings(over map[string]string) map[string]string {
	settings := map[string]string{
		"wal_level":             "logical",
		"max_replication_slots": "30",
		"max_wal_senders":       "30",
		"max_connections":       "200",
		"wal_keep_size":         "0",
		"fsync":                 "off",
	}
	maps.Copy(settings, over)
	return settings
}

// clusterHeap is that of each broker of a cluster.
const clusterHeap = "256m"

// kafkaSettings are for one broker. The session timeout is how long the
// controller holds a killed broker's registration, and so its return, up.
func kafkaSettings() map[string]string {
	return map[string]string{
		"auto.create.topics.enable":                "false",
		"default.replication.factor":               "1",
		"offsets.topic.replication.factor":         "1",
		"offsets.topic.num.partitions":             "3",
		"transaction.state.log.replication.factor": "1",
		"transaction.state.log.min.isr":            "1",
		"transaction.state.log.num.partitions":     "3",
		"group.initial.rebalance.delay.ms":         "0",
		"broker.session.timeout.ms":                "3000",
		"broker.heartbeat.interval.ms":             "500",
	}
}

func pingPostgres(ctx context.Context, addr string) error {
	conn, err := pgx.Connect(ctx, PostgresURL(addr, "postgres"))
	if err != nil {
		return err
	}
	return errors.Join(conn.Ping(ctx), conn.Close(ctx))
}

// PostgresURL is the address of a database.
func PostgresURL(addr, database string) string {
	return fmt.Sprintf("postgres://%s@%s/%s?sslmode=disable", Superuser, addr, database)
}

// pingKafka succeeds once the broker is registered, not fenced, and knows its
// controller: only then can topics be created. One of a cluster may know the
// others earlier than itself.
func pingKafka(ctx context.Context, addr string) error {
	client, err := kgo.NewClient(kgo.SeedBrokers(addr))
	if err != nil {
		return err
	}
	defer client.Close()
	request := kmsg.NewPtrMetadataRequest()
	request.Topics = []kmsg.MetadataRequestTopic{}
	response, err := request.RequestWith(ctx, client)
	if err != nil {
		return err
	}
	registered := slices.ContainsFunc(response.Brokers, func(b kmsg.MetadataResponseBroker) bool { return loopback(int(b.Port)) == addr })
	if !registered || response.ControllerID < 0 {
		return errors.New("the broker is not registered yet")
	}
	return nil
}

// loopback is an address on this machine.
func loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }
