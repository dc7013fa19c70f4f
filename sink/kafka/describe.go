package kafka

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/IBM/sarama"
)

// hedgeAfter is how long a broker alone is waited for before the next one is
// asked as well. A frozen one accepts connections and never answers, and
// RequestTimeout is longer than the relay gives the sink to read the marks.
const hedgeAfter = time.Second

// answering remembers the configured broker that answered last. Whatever connects
// next starts there.
type answering struct {
	mu   sync.Mutex
	addr string // "": none has answered yet
}

func (a *answering) remember(addr string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.addr = addr
}

func (a *answering) last() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.addr
}

// order is the configured brokers, the one that answered last first.
func (s *Sink) order() []string {
	last := s.answering.last()
	if last == "" {
		return s.cfg.Brokers
	}
	others := slices.DeleteFunc(slices.Clone(s.cfg.Brokers), func(addr string) bool { return addr == last })
	return append([]string{last}, others...)
}

// connectable is the configuration for sarama's clients. A client begins with any
// of Brokers and waits for its answer, so they are the one that answered last, if
// one has; it tells the client of the others.
func (s *Sink) connectable() Config {
	cfg := s.cfg
	if last := s.answering.last(); last != "" {
		cfg.Brokers = []string{last}
	}
	return cfg
}

// describe asks the configured brokers about a topic. sarama's client is not used
// because it reports a missing topic only after all its retries, and reveals
// neither cluster id nor topic id.
func (s *Sink) describe(d *dialer, topic string) (*sarama.MetadataResponse, *sarama.TopicMetadata, error) {
	resp, err := s.askAny(d, topic)
	if err != nil {
		return nil, nil, classify("describe topic "+topic, err)
	}
	return pickTopic(resp, topic)
}

type answer struct {
	addr string
	resp *sarama.MetadataResponse
	err  error
}

// askAny returns the first answer of a broker, or the errors of all. A broker is
// asked when those before it have failed or are late; each on a connection of its
// own, which is cut once there is an answer.
func (s *Sink) askAny(d *dialer, topic string) (*sarama.MetadataResponse, error) {
	race := newDialer(s.cfg.DialTimeout)
	defer context.AfterFunc(d.life, race.cut)()
	var asking sync.WaitGroup
	defer asking.Wait()
	defer race.cut() // so that the late ones end

	addrs := s.order()
	answers := make(chan answer, len(addrs)) // a late answer needs no reader
	late := time.NewTimer(0)                 // the first is due at once
	defer late.Stop()
	var errs []error
	for asked := 0; len(errs) < len(addrs); {
		select {
		case a := <-answers:
			if a.err == nil {
				s.answering.remember(a.addr)
				return a.resp, nil
			}
			errs = append(errs, fmt.Errorf("%s: %w", a.addr, a.err))
			late.Reset(0)
		case <-late.C:
			if asked == len(addrs) {
				continue
			}
			addr := addrs[asked]
			asked++
			asking.Go(func() {
				resp, err := s.ask(race, addr, topic)
				answers <- answer{addr, resp, err}
			})
			late.Reset(hedgeAfter)
		}
	}
	return nil, errors.Join(errs...)
}

func (s *Sink) ask(d *dialer, addr, topic string) (*sarama.MetadataResponse, error) {
	broker := sarama.NewBroker(addr)
	if err := broker.Open(s.cfg.baseConfig(d)); err != nil {
		return nil, err
	}
	resp, err := broker.GetMetadata(sarama.NewMetadataRequest(protocolVersion(), []string{topic}))
	_ = broker.Close() // after a failed request it is closed already
	return resp, err
}

func pickTopic(resp *sarama.MetadataResponse, topic string) (*sarama.MetadataResponse, *sarama.TopicMetadata, error) {
	for _, t := range resp.Topics {
		if t.Name == topic {
			return resp, t, nil
		}
	}
	return nil, nil, &failure{op: "describe topic " + topic, err: sarama.ErrIncompleteResponse, condition: condUnreachable}
}
