package kafka

import "github.com/IBM/sarama"

// connection is what a session has to do with Kafka: the marks, and the client
// and the producer of the events.
type connection struct {
	marks    *marksStore
	client   sarama.Client
	producer sarama.AsyncProducer
}

// produce makes the producer.
func (c *connection) produce(cfg Config, conf *sarama.Config, op string) error {
	client, err := sarama.NewClient(cfg.Brokers, conf)
	if err != nil {
		return classify("connect to Kafka", err)
	}
	producer, err := sarama.NewAsyncProducerFromClient(client)
	if err != nil {
		_ = client.Close()
		return classify(op, err)
	}
	c.client, c.producer = client, producer
	return nil
}

// close releases everything. Nobody may read the producer's results.
func (c *connection) close() {
	_ = c.producer.Close()
	_ = c.client.Close()
	c.marks.close()
}
