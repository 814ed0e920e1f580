"""What the synthetic voices say: the same short everyday sentences in every language.

The last HELD_OUT sentences of each language are for testing only. Japanese is written in kana, as eSpeak NG reads it.
"""

HELD_OUT = 4

SENTENCES = {
    "English": """
        The train leaves at nine in the morning.
        My sister lives in a small house by the sea.
        We would like two cups of coffee, please.
        It will rain in the afternoon.
        The children are playing in the garden.
        The library is closed on Sunday.
        Can you open the window?
        I have lost my keys.
        The soup is too hot.
        Our neighbour has three cats.
        Where is the nearest hospital?
        She reads a book every week.
        I bought new shoes yesterday.
        The bus is late again.
        Please speak more slowly.
        My father works in a bank.
        There is snow on the mountains.
        The museum opens at ten.
        I don't like fish.
        He plays the guitar very well.
        What time is it now?
        We are going to the beach tomorrow.
        The old man is waiting for a letter.
        This apple tastes sweet.
    """,
    "Spanish": """
        El tren sale a las nueve de la mañana.
        Mi hermana vive en una casa pequeña cerca del mar.
        Quisiéramos dos tazas de café, por favor.
        Va a llover por la tarde.
        Los niños juegan en el jardín.
        La biblioteca está cerrada el domingo.
        ¿Puedes abrir la ventana?
        He perdido mis llaves.
        La sopa está demasiado caliente.
        Nuestro vecino tiene tres gatos.
        ¿Dónde está el hospital más cercano?
        Ella lee un libro cada semana.
        Ayer compré zapatos nuevos.
        El autobús llega tarde otra vez.
        Por favor, hable más despacio.
        Mi padre trabaja en un banco.
        Hay nieve en las montañas.
        El museo abre a las diez.
        No me gusta el pescado.
        Él toca la guitarra muy bien.
        ¿Qué hora es ahora?
        Mañana vamos a la playa.
        El anciano espera una carta.
        Esta manzana sabe dulce.
    """,
    "French": """
        Le train part à neuf heures du matin.
        Ma sœur habite une petite maison près de la mer.
        Nous voudrions deux tasses de café, s'il vous plaît.
        Il va pleuvoir cet après-midi.
        Les enfants jouent dans le jardin.
        La bibliothèque est fermée le dimanche.
        Pouvez-vous ouvrir la fenêtre ?
        J'ai perdu mes clés.
        La soupe est trop chaude.
        Notre voisin a trois chats.
        Où est l'hôpital le plus proche ?
        Elle lit un livre chaque semaine.
        Hier, j'ai acheté de nouvelles chaussures.
        Le bus est encore en retard.
        Parlez plus lentement, s'il vous plaît.
        Mon père travaille dans une banque.
        Il y a de la neige sur les montagnes.
        Le musée ouvre à dix heures.
        Je n'aime pas le poisson.
        Il joue très bien de la guitare.
        Quelle heure est-il maintenant ?
        Demain, nous allons à la plage.
        Le vieil homme attend une lettre.
        Cette pomme a un goût sucré.
    """,
    "German": """
        Der Zug fährt um neun Uhr morgens ab.
        Meine Schwester wohnt in einem kleinen Haus am Meer.
        Wir möchten bitte zwei Tassen Kaffee.
        Am Nachmittag wird es regnen.
        Die Kinder spielen im Garten.
        Die Bibliothek ist am Sonntag geschlossen.
        Kannst du das Fenster öffnen?
        Ich habe meine Schlüssel verloren.
        Die Suppe ist zu heiß.
        Unser Nachbar hat drei Katzen.
        Wo ist das nächste Krankenhaus?
        Sie liest jede Woche ein Buch.
        Ich habe gestern neue Schuhe gekauft.
        Der Bus hat schon wieder Verspätung.
        Bitte sprechen Sie langsamer.
        Mein Vater arbeitet bei einer Bank.
        Auf den Bergen liegt Schnee.
        Das Museum öffnet um zehn.
        Ich mag keinen Fisch.
        Er spielt sehr gut Gitarre.
        Wie spät ist es jetzt?
        Morgen fahren wir an den Strand.
        Der alte Mann wartet auf einen Brief.
        Dieser Apfel schmeckt süß.
    """,
    "Italian": """
        Il treno parte alle nove di mattina.
        Mia sorella vive in una piccola casa vicino al mare.
        Vorremmo due tazze di caffè, per favore.
        Nel pomeriggio pioverà.
        I bambini giocano in giardino.
        La biblioteca è chiusa la domenica.
        Puoi aprire la finestra?
        Ho perso le chiavi.
        La zuppa è troppo calda.
        Il nostro vicino ha tre gatti.
        Dov'è l'ospedale più vicino?
        Lei legge un libro ogni settimana.
        Ieri ho comprato delle scarpe nuove.
        L'autobus è di nuovo in ritardo.
        Parli più lentamente, per favore.
        Mio padre lavora in banca.
        C'è neve sulle montagne.
        Il museo apre alle dieci.
        Non mi piace il pesce.
        Lui suona molto bene la chitarra.
        Che ore sono adesso?
        Domani andiamo in spiaggia.
        Il vecchio aspetta una lettera.
        Questa mela è dolce.
    """,
    "Portuguese": """
        O trem sai às nove da manhã.
        Minha irmã mora em uma casa pequena perto do mar.
        Queremos duas xícaras de café, por favor.
        Vai chover à tarde.
        As crianças estão brincando no jardim.
        A biblioteca fecha aos domingos.
        Você pode abrir a janela?
        Eu perdi minhas chaves.
        A sopa está quente demais.
        Nosso vizinho tem três gatos.
        Onde fica o hospital mais próximo?
        Ela lê um livro por semana.
        Ontem comprei sapatos novos.
        O ônibus está atrasado de novo.
        Por favor, fale mais devagar.
        Meu pai trabalha em um banco.
        Há neve nas montanhas.
        O museu abre às dez.
        Eu não gosto de peixe.
        Ele toca violão muito bem.
        Que horas são agora?
        Amanhã vamos à praia.
        O velho está esperando uma carta.
        Esta maçã é doce.
    """,
    "Russian": """
        Поезд отправляется в девять утра.
        Моя сестра живёт в маленьком доме у моря.
        Две чашки кофе, пожалуйста.
        Днём будет дождь.
        Дети играют в саду.
        Библиотека закрыта в воскресенье.
        Вы можете открыть окно?
        Я потерял свои ключи.
        Суп слишком горячий.
        У нашего соседа три кошки.
        Где ближайшая больница?
        Она читает книгу каждую неделю.
        Вчера я купил новые ботинки.
        Автобус опять опаздывает.
        Пожалуйста, говорите медленнее.
        Мой отец работает в банке.
        На горах лежит снег.
        Музей открывается в десять.
        Я не люблю рыбу.
        Он очень хорошо играет на гитаре.
        Сколько сейчас времени?
        Завтра мы едем на пляж.
        Старик ждёт письма.
        Это яблоко сладкое.
    """,
    "Chinese": """
        火车早上九点开。
        我妹妹住在海边的小房子里。
        请给我们两杯咖啡。
        下午会下雨。
        孩子们在花园里玩。
        图书馆星期天不开门。
        你可以打开窗户吗？
        我的钥匙丢了。
        汤太热了。
        我们的邻居有三只猫。
        最近的医院在哪里？
        她每个星期看一本书。
        我昨天买了新鞋。
        公共汽车又晚了。
        请说慢一点。
        我爸爸在银行工作。
        山上有雪。
        博物馆十点开门。
        我不喜欢吃鱼。
        他吉他弹得很好。
        现在几点？
        我们明天去海边。
        那位老人在等一封信。
        这个苹果很甜。
    """,
    "Japanese": """
        でんしゃは あさ くじに でます。
        いもうとは うみの ちかくの ちいさな いえに すんでいます。
        コーヒーを ふたつ おねがいします。
        ごごは あめが ふります。
        こどもたちは にわで あそんでいます。
        としょかんは にちようびに やすみです。
        まどを あけて くれますか。
        かぎを なくしました。
        スープが あつすぎます。
        となりの ひとは ねこを さんびき かっています。
        いちばん ちかい びょういんは どこですか。
        かのじょは まいしゅう ほんを よみます。
        きのう あたらしい くつを かいました。
        バスは また おくれています。
        もっと ゆっくり はなして ください。
        ちちは ぎんこうで はたらいています。
        やまに ゆきが あります。
        はくぶつかんは じゅうじに あきます。
        わたしは さかなが すきでは ありません。
        かれは ギターが とても じょうずです。
        いま なんじですか。
        あした うみに いきます。
        おじいさんは てがみを まっています。
        この りんごは あまいです。
    """,
    "Korean": """
        기차는 아침 아홉 시에 떠납니다.
        제 여동생은 바닷가의 작은 집에 살아요.
        커피 두 잔 주세요.
        오후에 비가 올 거예요.
        아이들이 정원에서 놀고 있어요.
        도서관은 일요일에 문을 닫아요.
        창문을 열어 주시겠어요?
        저는 열쇠를 잃어버렸어요.
        국이 너무 뜨거워요.
        우리 이웃은 고양이가 세 마리 있어요.
        가장 가까운 병원이 어디예요?
        그녀는 매주 책을 한 권 읽어요.
        어제 새 신발을 샀어요.
        버스가 또 늦었어요.
        좀 더 천천히 말씀해 주세요.
        제 아버지는 은행에서 일하세요.
        산에 눈이 있어요.
        박물관은 열 시에 열어요.
        저는 생선을 좋아하지 않아요.
        그는 기타를 아주 잘 쳐요.
        지금 몇 시예요?
        우리는 내일 바다에 갈 거예요.
        할아버지가 편지를 기다리고 있어요.
        이 사과는 달아요.
    """,
    "Dutch": """
        De trein vertrekt om negen uur 's ochtends.
        Mijn zus woont in een klein huis aan zee.
        Wij willen graag twee koppen koffie.
        Vanmiddag gaat het regenen.
        De kinderen spelen in de tuin.
        De bibliotheek is op zondag gesloten.
        Kun je het raam openen?
        Ik ben mijn sleutels kwijt.
        De soep is te heet.
        Onze buurman heeft drie katten.
        Waar is het dichtstbijzijnde ziekenhuis?
        Ze leest elke week een boek.
        Ik heb gisteren nieuwe schoenen gekocht.
        De bus is weer te laat.
        Kunt u wat langzamer praten?
        Mijn vader werkt bij een bank.
        Er ligt sneeuw op de bergen.
        Het museum gaat om tien uur open.
        Ik hou niet van vis.
        Hij speelt heel goed gitaar.
        Hoe laat is het nu?
        Morgen gaan we naar het strand.
        De oude man wacht op een brief.
        Deze appel smaakt zoet.
    """,
    "Polish": """
        Pociąg odjeżdża o dziewiątej rano.
        Moja siostra mieszka w małym domu nad morzem.
        Poprosimy dwie filiżanki kawy.
        Po południu będzie padać.
        Dzieci bawią się w ogrodzie.
        Biblioteka jest zamknięta w niedzielę.
        Czy możesz otworzyć okno?
        Zgubiłem klucze.
        Zupa jest za gorąca.
        Nasz sąsiad ma trzy koty.
        Gdzie jest najbliższy szpital?
        Ona czyta jedną książkę tygodniowo.
        Wczoraj kupiłem nowe buty.
        Autobus znowu się spóźnia.
        Proszę mówić wolniej.
        Mój ojciec pracuje w banku.
        W górach leży śnieg.
        Muzeum otwiera się o dziesiątej.
        Nie lubię ryb.
        On bardzo dobrze gra na gitarze.
        Która jest teraz godzina?
        Jutro jedziemy na plażę.
        Starszy pan czeka na list.
        To jabłko jest słodkie.
    """,
}
SENTENCES = {language: [line.strip() for line in text.strip().splitlines()] for language, text in SENTENCES.items()}
