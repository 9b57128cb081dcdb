/* Load on one HTTP address of 127.0.0.1, from one epoll loop; what came back as one JSON object on stdout.

   generate PORT REQUESTS closed CONNECTIONS SECONDS        each connection sends when its answer has ended
   generate PORT REQUESTS open CONNECTIONS SECONDS RATE     Poisson arrivals; times from the planned moment
   generate PORT REQUESTS hold STREAMS SECONDS              opens streams, keeps them until stdin ends

   REQUESTS: a file of whole HTTP requests, each after its length (32 bits, little-endian). They go round; in each, ten "#"
   are replaced by a counter, so that no two are the same. The id of a streamed chunk is the time it was written at. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

enum { FILES = 32768, READ = 131072, HEAD = 8192, EVENTS = 512, SAMPLES = 1 << 22, ARRIVALS = 1 << 20, RAMP = 64 };
static const uint64_t DRAIN_NS = 2000000000u;

typedef struct {
  uint64_t began_ns;      /* 0: idle */
  const char *out;        /* what is left to send */
  size_t out_bytes;
  int answers;            /* that ended on it before */
  int body, chunked, began; /* of the answer: the head is over; how long; its first token came */
  size_t left;
  size_t kept;            /* bytes of the answer that are looked at again with the next */
  char keep[HEAD];
} Connection;

typedef struct { char *bytes; size_t count; char *counter; } Request;
typedef struct { double *values; size_t count; } Samples;

static Connection *connections[FILES];
static Request *requests;
static size_t request_count, sent_count, chunk_count, done_count, failed_count, open_streams;
static Samples latencies, firsts, relays;
static int poll_fd, timer_fd, port, closing, holding, closed_loop;
static int idle[FILES];
static size_t idle_count;
static uint64_t waiting[ARRIVALS];
static size_t waiting_first, waiting_count;

static void die(const char *what) { perror(what); exit(1); }

static uint64_t now_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void sample(Samples *samples, double value) {
  if (samples->count < SAMPLES) samples->values[samples->count++] = value;
}

static void load(const char *path) {
  int file = open(path, O_RDONLY);
  struct stat status;
  if (file < 0 || fstat(file, &status)) die(path);
  char *at = mmap(NULL, (size_t)status.st_size, PROT_READ | PROT_WRITE, MAP_PRIVATE, file, 0), *end = at + status.st_size;
  requests = malloc(sizeof(Request) * 65536);
  while (at < end && request_count < 65536) {
    uint32_t size;
    memcpy(&size, at, 4);
    requests[request_count++] = (Request){at + 4, size, memmem(at + 4, size, "##########", 10)};
    at += 4 + size;
  }
}

static int connect_one(void) {
  int file = socket(AF_INET, SOCK_STREAM, 0), yes = 1;
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  if (file < 0 || file >= FILES) die("socket");
  if (connect(file, (struct sockaddr *)&address, sizeof address)) die("connect");
  setsockopt(file, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
  fcntl(file, F_SETFL, O_NONBLOCK);
  connections[file] = calloc(1, sizeof(Connection));
  struct epoll_event event = {.events = EPOLLIN, .data.fd = file};
  epoll_ctl(poll_fd, EPOLL_CTL_ADD, file, &event);
  return file;
}

static void push(int file) {
  Connection *c = connections[file];
  while (c->out_bytes) {
    ssize_t sent = send(file, c->out, c->out_bytes, MSG_NOSIGNAL);
    if (sent < 0) {
      struct epoll_event event = {.events = EPOLLIN | EPOLLOUT, .data.fd = file};
      if (errno == EAGAIN) epoll_ctl(poll_fd, EPOLL_CTL_MOD, file, &event);
      return; /* another error shows as the end of what is read */
    }
    c->out += sent;
    c->out_bytes -= (size_t)sent;
  }
}

static void ask(int file, uint64_t began_ns) {
  Connection *c = connections[file];
  Request *request = &requests[sent_count % request_count];
  char digits[16];
  snprintf(digits, sizeof digits, "%010zu", sent_count++ % 10000000000u);
  if (request->counter) memcpy(request->counter, digits, 10);
  c->began_ns = began_ns;
  c->out = request->bytes;
  c->out_bytes = request->count;
  c->body = c->chunked = c->began = 0;
  c->left = c->kept = 0;
  push(file);
}

static void rest(int file) { /* it has nothing in flight */
  if (closing || holding) return;
  if (closed_loop) ask(file, now_ns());
  else if (waiting_count) {
    uint64_t planned = waiting[waiting_first];
    waiting_first = (waiting_first + 1) % ARRIVALS;
    waiting_count--;
    ask(file, planned);
  } else idle[idle_count++] = file;
}

static void done(int file) {
  Connection *c = connections[file];
  sample(&latencies, (double)(now_ns() - c->began_ns) / 1e3);
  done_count++;
  c->began_ns = 0;
  c->answers++;
  rest(file);
}

static void lost(int file) {
  Connection *c = connections[file];
  int in_flight = c->began_ns != 0;
  connections[file] = NULL;
  free(c);
  close(file);
  for (size_t place = 0; place < idle_count; place++)
    if (idle[place] == file) { idle[place] = idle[--idle_count]; break; }
  if (in_flight) failed_count++;
  if (failed_count > 1000) { fprintf(stderr, "more than 1000 requests failed\n"); exit(1); }
  if (!closing && !holding) rest(connect_one());
}

/* `bytes` is preceded by what was kept of the answer; returns how much of the end to keep, or -1 at the answer's end */
static long scan(Connection *c, char *bytes, size_t count, size_t fresh, uint64_t time_ns) {
  char *at = bytes, *end = bytes + count;
  long keep = count < 8 ? (long)count : 8;
  while ((at = memmem(at, (size_t)(end - at), "chatcmpl-", 9))) {
    if (end - at < 32) { keep = end - at; break; }
    at += 9;
    char *after;
    uint64_t written_ns = strtoull(at, &after, 10);
    chunk_count++;
    if (written_ns > 1000 && *after == '"') sample(&relays, (double)(time_ns - written_ns) / 1e3);
    if (!c->began) {
      c->began = 1;
      if (holding) open_streams++;
      else if (c->answers) sample(&firsts, (double)(time_ns - c->began_ns) / 1e3);
    }
  }
  if (c->chunked) return count >= 5 && !memcmp(end - 5, "0\r\n\r\n", 5) ? -1 : keep;
  if (fresh >= c->left) return -1;
  c->left -= fresh;
  return keep;
}

static void take(int file) {
  static char buffer[HEAD + READ];
  Connection *c = connections[file];
  memcpy(buffer, c->keep, c->kept);
  ssize_t size = recv(file, buffer + c->kept, READ - 1, 0);
  if (size <= 0) { if (size == 0 || errno != EAGAIN) lost(file); return; }
  uint64_t time_ns = now_ns();
  size_t count = c->kept + (size_t)size, fresh = (size_t)size;
  char *bytes = buffer;
  buffer[count] = 0;
  if (!c->began_ns) { lost(file); return; } /* nothing was asked */
  if (!c->body) {
    char *end = memmem(buffer, count, "\r\n\r\n", 4);
    if (!end) {
      if (count > HEAD) { lost(file); return; }
      memcpy(c->keep, buffer, count);
      c->kept = count;
      return;
    }
    end[2] = 0;
    if (strncmp(buffer, "HTTP/1.1 200", 12)) {
      if (!failed_count) fprintf(stderr, "%.200s\n%.300s\n", buffer, end + 4);
      lost(file);
      return;
    }
    const char *length = strcasestr(buffer, "\r\ncontent-length:");
    c->chunked = !length;
    c->left = length ? strtoul(length + 17, NULL, 10) : 0;
    c->body = 1;
    bytes = end + 4;
    count = fresh = count - (size_t)(bytes - buffer);
  }
  long keep = scan(c, bytes, count, fresh, time_ns);
  if (keep < 0) { c->kept = 0; done(file); return; }
  c->kept = (size_t)keep;
  memcpy(c->keep, bytes + count - keep, c->kept);
}

static int less(const void *left, const void *right) {
  double a = *(const double *)left, b = *(const double *)right;
  return (a > b) - (a < b);
}

static void show(const char *name, Samples *samples) {
  if (!samples->count) return;
  qsort(samples->values, samples->count, sizeof(double), less);
  double top = (double)(samples->count - 1);
  printf(", \"%s\": {\"count\": %zu, \"p50\": %.1f, \"p90\": %.1f, \"p99\": %.1f, \"max\": %.1f}", name, samples->count,
         samples->values[(size_t)(top * 0.5)], samples->values[(size_t)(top * 0.9)], samples->values[(size_t)(top * 0.99)],
         samples->values[(size_t)top]);
}

static void wake_at(uint64_t due_ns) {
  struct itimerspec when = {.it_value = {.tv_sec = (time_t)(due_ns / 1000000000u), .tv_nsec = (long)(due_ns % 1000000000u)}};
  timerfd_settime(timer_fd, TFD_TIMER_ABSTIME, &when, NULL);
}

static void turn(void) {
  struct epoll_event ready[EVENTS];
  int found = epoll_wait(poll_fd, ready, EVENTS, 1000);
  for (int place = 0; place < found; place++) {
    int file = ready[place].data.fd;
    if (file == timer_fd) {
      uint64_t times;
      (void)!read(timer_fd, &times, sizeof times);
    } else if (connections[file]) {
      if (ready[place].events & EPOLLOUT) {
        struct epoll_event event = {.events = EPOLLIN, .data.fd = file};
        epoll_ctl(poll_fd, EPOLL_CTL_MOD, file, &event);
        push(file);
      }
      if (ready[place].events & ~(uint32_t)EPOLLOUT) take(file);
    }
  }
}

int main(int count, char **words) {
  if (count < 6) { fprintf(stderr, "generate PORT REQUESTS closed|open|hold CONNECTIONS SECONDS [RATE]\n"); return 2; }
  struct rlimit files;
  getrlimit(RLIMIT_NOFILE, &files);
  files.rlim_cur = files.rlim_max;
  setrlimit(RLIMIT_NOFILE, &files);
  port = atoi(words[1]);
  load(words[2]);
  closed_loop = !strcmp(words[3], "closed");
  holding = !strcmp(words[3], "hold");
  size_t wanted = strtoul(words[4], NULL, 10);
  uint64_t length_ns = (uint64_t)(atof(words[5]) * 1e9);
  double rate = count > 6 ? atof(words[6]) : 0;
  latencies.values = malloc(sizeof(double) * SAMPLES);
  firsts.values = malloc(sizeof(double) * SAMPLES);
  relays.values = malloc(sizeof(double) * SAMPLES);
  poll_fd = epoll_create1(0);
  timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
  struct epoll_event event = {.events = EPOLLIN, .data.fd = timer_fd};
  epoll_ctl(poll_fd, EPOLL_CTL_ADD, timer_fd, &event);
  srand48(7);
  uint64_t start_ns = now_ns(), end_ns = start_ns + length_ns;
  if (holding) {
    wake_at(end_ns);
    for (size_t made = 0; open_streams < wanted && !failed_count && now_ns() < end_ns;) {
      while (made < wanted && made - open_streams < RAMP) { ask(connect_one(), now_ns()); made++; }
      turn();
    }
  } else {
    for (size_t made = 0; made < wanted; made++) rest(connect_one());
    double next_ns = (double)now_ns();
    if (closed_loop) wake_at(end_ns);
    while (now_ns() < end_ns) {
      if (!closed_loop) {
        for (uint64_t time_ns = now_ns(); (uint64_t)next_ns <= time_ns; next_ns += -log(1 - drand48()) / rate * 1e9) {
          if (idle_count) ask(idle[--idle_count], (uint64_t)next_ns);
          else if (waiting_count < ARRIVALS) waiting[(waiting_first + waiting_count++) % ARRIVALS] = (uint64_t)next_ns;
        }
        wake_at((uint64_t)next_ns);
      }
      turn();
    }
  }
  uint64_t stop_ns = now_ns();
  size_t in_time = done_count, chunks_in_time = chunk_count, in_flight = 0;
  closing = 1;
  if (!holding && !closed_loop) {
    wake_at(stop_ns + DRAIN_NS);
    for (;;) {
      in_flight = 0;
      for (int file = 0; file < FILES; file++) in_flight += connections[file] && connections[file]->began_ns;
      if (!in_flight || now_ns() > stop_ns + DRAIN_NS) break;
      turn();
    }
  }
  printf("{\"requests\": %zu, \"chunks\": %zu, \"failed\": %zu, \"unfinished\": %zu, \"open\": %zu, \"seconds\": %.4f", in_time,
         chunks_in_time, failed_count, in_flight + waiting_count, open_streams, (double)(stop_ns - start_ns) / 1e9);
  show("latency_us", &latencies);
  show("first_us", &firsts);
  show("relay_us", &relays);
  puts("}");
  fflush(stdout);
  if (holding) while (getchar() != EOF) {}
  return 0;
}
