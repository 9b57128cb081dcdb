/* Dummy nodes: an epoll loop that answers OpenAI-like requests on several ports of 127.0.0.1, much cheaper than any router.

   upstream PORT...     then, one a line on stdin, how to answer from now on:
     json                               one answer at once, which names the port that gave it
     stream CHUNKS FIRST_US BETWEEN_US  server-sent events; BETWEEN_US 0: all of them in one write
   Each line is acknowledged with "ok". The end of stdin ends it. Every chunk's id is the time it was written at. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

enum { FILES = 32768, PORTS = 16, READ = 65536, HEAD = 32768, CHUNKS = 1000, CHUNK = 256, EVENTS = 512 };

typedef struct {
  int port;
  int reading;        /* 0: a head; 1: a body with a length; 2: a chunked body */
  int chat, get;      /* what the request in hand asks for */
  size_t head_bytes;  /* held in `head` */
  size_t left;        /* of the body */
  char tail[5];       /* of a chunked body */
  char *head;
  int written;        /* chunks of the stream in hand */
  uint64_t turn;      /* tells a timer's connection from a later one of the same number */
} Connection;

typedef struct { uint64_t due_ns; int file; uint64_t turn; } Timer;
typedef struct { Timer *ring; size_t first, count; } Line; /* all wait equally long, so it is in order */

static Connection *connections[FILES];
static int listening[FILES];
static Line firsts, nexts;
static int streaming, chunks, poll_fd, timer_fd;
static uint64_t first_ns, between_ns, turns;

static void die(const char *what) { perror(what); exit(1); }

static uint64_t now_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void wait_in(Line *line, int file, uint64_t due_ns) {
  if (line->count == FILES) { fprintf(stderr, "too many streams\n"); exit(1); }
  line->ring[(line->first + line->count++) % FILES] = (Timer){due_ns, file, connections[file]->turn};
}

static void hang_up(int file) {
  Connection *c = connections[file];
  if (!c) return;
  connections[file] = NULL;
  free(c->head);
  free(c);
  close(file);
}

static void send_all(int file, const char *bytes, size_t count) {
  ssize_t sent = send(file, bytes, count, MSG_NOSIGNAL);
  if (sent != (ssize_t)count) hang_up(file); /* answers are smaller than any socket's buffer */
}

static size_t put_chunk(char *at, uint64_t time_ns) {
  char event[CHUNK];
  int count = snprintf(event, sizeof event,
      "data: {\"id\":\"chatcmpl-%llu\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"dummy\","
      "\"choices\":[{\"index\":0,\"delta\":{\"content\":\" token\"},\"finish_reason\":null}]}\n\n",
      (unsigned long long)time_ns);
  return (size_t)sprintf(at, "%x\r\n%s\r\n", (unsigned)count, event);
}

static const char STREAM_HEAD[] =
    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
static const char STREAM_END[] = "e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n";

static void stream(int file) { /* the next chunk, or all that are left */
  static char out[CHUNKS * CHUNK + 512];
  Connection *c = connections[file];
  size_t count = 0;
  if (!c->written) { memcpy(out, STREAM_HEAD, sizeof STREAM_HEAD - 1); count = sizeof STREAM_HEAD - 1; }
  do count += put_chunk(out + count, now_ns()); while (++c->written < chunks && !between_ns);
  int done = c->written >= chunks;
  if (done) { memcpy(out + count, STREAM_END, sizeof STREAM_END - 1); count += sizeof STREAM_END - 1; c->turn = ++turns; c->written = 0; }
  send_all(file, out, count);
  if (!done && connections[file]) wait_in(&nexts, file, now_ns() + between_ns);
}

static void answer(int file) {
  Connection *c = connections[file];
  if (c->chat && streaming) {
    c->written = 0;
    c->turn = ++turns;
    if (first_ns) wait_in(&firsts, file, now_ns() + first_ns); else stream(file);
    return;
  }
  char body[512], out[1024];
  int size;
  if (c->chat)
    size = snprintf(body, sizeof body,
        "{\"id\":\"chatcmpl-1\",\"object\":\"chat.completion\",\"created\":1,\"model\":\"dummy\",\"choices\":[{\"index\":0,"
        "\"message\":{\"role\":\"assistant\",\"content\":\"port %d\"},\"finish_reason\":\"stop\"}],"
        "\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":1,\"total_tokens\":2}}", c->port);
  else if (c->get)  /* health, models, what a server is: for whoever asks before it routes */
    size = snprintf(body, sizeof body,
        "{\"object\":\"list\",\"data\":[{\"id\":\"dummy\",\"object\":\"model\",\"created\":1,\"owned_by\":\"vllm\",\"root\":\"dummy\","
        "\"max_model_len\":131072}],\"version\":\"1\",\"status\":\"ok\"}");
  else size = snprintf(body, sizeof body, "{\"error\":{\"message\":\"not found\",\"type\":\"not_found\",\"code\":404}}");
  int count = snprintf(out, sizeof out, "HTTP/1.1 %s\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s",
      c->chat || c->get ? "200 OK" : "404 Not Found", size, body);
  send_all(file, out, (size_t)count);
}

static void take_head(Connection *c, char *head) { /* ends in NUL */
  c->get = !strncmp(head, "GET ", 4);
  c->chat = !strncmp(head, "POST ", 5) && strstr(head, "/chat/completions ") != NULL;
  const char *length = strcasestr(head, "\r\ncontent-length:");
  c->left = length ? strtoul(length + 17, NULL, 10) : 0;
  c->reading = length ? 1 : strcasestr(head, "\r\ntransfer-encoding:") ? 2 : 1;
  memset(c->tail, 0, sizeof c->tail);
  if (strcasestr(head, "\r\nexpect:")) { fprintf(stderr, "expect: 100-continue is not answered\n"); exit(1); }
}

static void feed(int file, char *bytes, size_t count) {
  while (count && connections[file]) {
    Connection *c = connections[file];
    if (c->reading == 0) {
      size_t part = count < HEAD - 1 - c->head_bytes ? count : HEAD - 1 - c->head_bytes;
      size_t before = c->head_bytes > 3 ? c->head_bytes - 3 : 0;
      memcpy(c->head + c->head_bytes, bytes, part);
      char *end = memmem(c->head + before, c->head_bytes + part - before, "\r\n\r\n", 4);
      if (!end) {
        c->head_bytes += part;
        if (part < count) { hang_up(file); return; }
        return;
      }
      size_t used = (size_t)(end + 4 - c->head) - c->head_bytes;
      end[2] = 0;
      take_head(c, c->head);
      c->head_bytes = 0;
      bytes += used;
      count -= used;
    }
    if (c->reading == 1) {
      size_t part = count < c->left ? count : c->left;
      c->left -= part; bytes += part; count -= part;
      if (c->left) return;
    } else { /* nothing follows a request before its answer, so its end is an end of what was read */
      if (count >= 5) memcpy(c->tail, bytes + count - 5, 5);
      else { memmove(c->tail, c->tail + count, 5 - count); memcpy(c->tail + 5 - count, bytes, count); }
      count = 0;
      if (memcmp(c->tail, "0\r\n\r\n", 5)) return;
    }
    c->reading = 0;
    answer(file);
  }
}

static void accept_all(int file) {
  for (;;) {
    int fresh = accept4(file, NULL, NULL, SOCK_NONBLOCK);
    if (fresh < 0) { if (errno != EAGAIN) die("accept"); return; }
    if (fresh >= FILES) { close(fresh); return; }
    int yes = 1;
    setsockopt(fresh, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    Connection *c = calloc(1, sizeof *c);
    c->head = malloc(HEAD);
    c->port = listening[file];
    c->turn = ++turns;
    connections[fresh] = c;
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fresh};
    epoll_ctl(poll_fd, EPOLL_CTL_ADD, fresh, &event);
  }
}

static void run_due(Line *line, uint64_t time_ns) {
  while (line->count && line->ring[line->first].due_ns <= time_ns) {
    Timer timer = line->ring[line->first];
    line->first = (line->first + 1) % FILES;
    line->count--;
    Connection *c = connections[timer.file];
    if (c && c->turn == timer.turn) stream(timer.file);
  }
}

static void set_timer(void) {
  uint64_t due = UINT64_MAX;
  if (firsts.count) due = firsts.ring[firsts.first].due_ns;
  if (nexts.count && nexts.ring[nexts.first].due_ns < due) due = nexts.ring[nexts.first].due_ns;
  struct itimerspec when = {0};
  if (due != UINT64_MAX) { when.it_value.tv_sec = due / 1000000000u; when.it_value.tv_nsec = due % 1000000000u; }
  timerfd_settime(timer_fd, TFD_TIMER_ABSTIME, &when, NULL);
}

static void command(char *line) {
  unsigned long first_us, between_us;
  if (!strncmp(line, "json", 4)) streaming = 0;
  else if (sscanf(line, "stream %d %lu %lu", &chunks, &first_us, &between_us) == 3 && chunks > 0 && chunks <= CHUNKS) {
    streaming = 1;
    first_ns = first_us * 1000;
    between_ns = between_us * 1000;
    firsts.count = nexts.count = 0; /* those of other delays */
  } else { fprintf(stderr, "not understood: %s", line); exit(1); }
  puts("ok");
  fflush(stdout);
}

int main(int count, char **words) {
  struct rlimit files;
  getrlimit(RLIMIT_NOFILE, &files);
  files.rlim_cur = files.rlim_max;
  setrlimit(RLIMIT_NOFILE, &files);
  firsts.ring = calloc(FILES, sizeof(Timer));
  nexts.ring = calloc(FILES, sizeof(Timer));
  poll_fd = epoll_create1(0);
  timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
  struct epoll_event event = {.events = EPOLLIN, .data.fd = timer_fd};
  epoll_ctl(poll_fd, EPOLL_CTL_ADD, timer_fd, &event);
  event.data.fd = 0;
  epoll_ctl(poll_fd, EPOLL_CTL_ADD, 0, &event);
  for (int place = 1; place < count && place <= PORTS; place++) {
    int file = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), yes = 1;
    setsockopt(file, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(words[place])),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (bind(file, (struct sockaddr *)&address, sizeof address) || listen(file, 4096)) die(words[place]);
    listening[file] = atoi(words[place]);
    event.data.fd = file;
    epoll_ctl(poll_fd, EPOLL_CTL_ADD, file, &event);
  }
  static char bytes[READ];
  struct epoll_event ready[EVENTS];
  puts("ok");
  fflush(stdout);
  for (;;) {
    set_timer();
    int found = epoll_wait(poll_fd, ready, EVENTS, -1);
    for (int place = 0; place < found; place++) {
      int file = ready[place].data.fd;
      if (file == 0) {
        ssize_t size = read(0, bytes, READ - 1);
        if (size <= 0) return 0;
        bytes[size] = 0;
        command(bytes);
      } else if (file == timer_fd) {
        uint64_t times;
        (void)!read(timer_fd, &times, sizeof times);
      } else if (listening[file]) accept_all(file);
      else if (connections[file]) {
        ssize_t size = recv(file, bytes, READ, 0);
        if (size > 0) feed(file, bytes, (size_t)size);
        else if (size == 0 || errno != EAGAIN) hang_up(file);
      }
    }
    run_due(&firsts, now_ns());
    run_due(&nexts, now_ns());
  }
}
