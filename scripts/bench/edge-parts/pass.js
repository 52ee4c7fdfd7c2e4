// The floor: what a Worker costs that decides nothing. Everything goes to one endpoint, headers and all.
export default {
  async fetch(request, env) {
    const { pathname, search } = new URL(request.url);
    const body = await request.arrayBuffer();
    return fetch(env.ENDPOINT + pathname + search, {
      method: request.method,
      headers: request.headers,
      body,
      redirect: "manual",
    });
  },
};
