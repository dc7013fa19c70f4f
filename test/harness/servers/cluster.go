package servers

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"strconv"
	"strings"
	"sync"

	"github.com/walpost/walpost/test/harness/kafkaembed"
)

// ClusterSize is how many brokers a Kafka cluster has. A topic has a replica on
// each, and lives on two.
const ClusterSize = 3

// KafkaCluster starts a cluster of the newest release. Broker i has node id i+1.
// The group is to be closed after its servers.
func (s *Set) KafkaCluster(ctx context.Context) (*Group, []*Server, error) {
	g, err := s.Group(ctx, 2*ClusterSize) // brokers, and controllers
	if err != nil {
		return nil, nil, err
	}
	brokers, err := g.brokers(ctx)
	for _, broker := range brokers { // all run by now: one alone would not come to serve
		if err == nil {
			_, err = s.started(ctx, broker, nil)
		}
	}
	if err == nil {
		return g, brokers, nil
	}
	ctx = context.WithoutCancel(ctx)
	for _, broker := range brokers {
		err = errors.Join(err, broker.Remove(ctx))
	}
	return nil, nil, errors.Join(err, g.Close(ctx))
}

// brokers starts all at the same time and returns those that did, unproven.
func (g *Group) brokers(ctx context.Context) ([]*Server, error) {
	id, err := kafkaembed.ClusterID()
	if err != nil {
		return nil, err
	}
	var (
		starting sync.WaitGroup
		servers  [ClusterSize]*Server
		errs     [ClusterSize]error
	)
	for i := range ClusterSize {
		starting.Go(func() { servers[i], errs[i] = g.run.kafka(ctx, g.ports[i], id, g.nodeSettings(i)) })
	}
	starting.Wait()
	var started []*Server
	for _, server := range servers {
		if server != nil {
			started = append(started, server)
		}
	}
	return started, errors.Join(errs[:]...)
}

// nodeSettings make a broker that is one of the controllers as well. Two of
// three replicas must have what is acknowledged.
func (g *Group) nodeSettings(i int) map[string]string {
	controller := func(i int) string { return g.Addr(ClusterSize + i) }
	voters := make([]string, ClusterSize)
	for j := range voters {
		voters[j] = fmt.Sprintf("%d@%s", j+1, controller(j))
	}
	settings := kafkaSettings()
	maps.Copy(settings, map[string]string{
		"process.roles":                            "broker,controller",
		"node.id":                                  strconv.Itoa(i + 1),
		"controller.quorum.voters":                 strings.Join(voters, ","),
		"listeners":                                "PLAINTEXT://" + net.JoinHostPort(g.run.listenHost(), strconv.Itoa(g.ports[i])) + ",CONTROLLER://" + controller(i),
		"advertised.listeners":                     "PLAINTEXT://" + g.Addr(i),
		"controller.listener.names":                "CONTROLLER",
		"listener.security.protocol.map":           "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
		"default.replication.factor":               "3",
		"min.insync.replicas":                      "2",
		"offsets.topic.replication.factor":         "3",
		"transaction.state.log.replication.factor": "3",
		"transaction.state.log.min.isr":            "2",
		"controller.quorum.election.timeout.ms":    "500",
		"controller.quorum.fetch.timeout.ms":       "1000",
		"replica.lag.time.max.ms":                  "3000",
		"num.network.threads":                      "2",
		"num.io.threads":                           "2",
	})
	return settings
}
